"""The teacher: a moving average with tensors of its own, beside frozen ones that it shares."""

from __future__ import annotations

import pytest
import torch

from fewshot.dino.head import DinoHead
from fewshot.dino.teacher import Teacher
from models.encoder import Encoder
from models.loading import load_encoder
from models.parallel_adapter import adapter_parameters
from models.tunings import TuningOptions, apply_tuning


@pytest.fixture
def student(small_model) -> tuple[Encoder, DinoHead]:
    encoder = load_encoder(str(small_model))
    apply_tuning(encoder, "parallel-adapter", TuningOptions(bottleneck=4))
    return encoder, DinoHead(32, 12, torch.Generator().manual_seed(0), hidden=8, bottleneck=4)


def moved(*modules: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for module in modules:
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.data += torch.randn(parameter.shape, generator=generator)


def test_it_follows_by_the_formula(student) -> None:
    teacher = Teacher(*student)
    start = {name: tensor.clone() for name, tensor in teacher.buffers().items()}
    moved(*student)
    teacher.follow(0.9)
    moved(*student)
    now = {f"teacher/{name}": value for name, value in adapter_parameters(student[0]).items()}
    now |= {f"teacher_head/{name}": value for name, value in student[1].named_parameters()}
    once = {name: tensor.clone() for name, tensor in teacher.buffers().items()}
    teacher.follow(0.75)
    assert start.keys() == now.keys() == teacher.buffers().keys()
    for name, tensor in teacher.buffers().items():
        torch.testing.assert_close(tensor, 0.75 * once[name] + 0.25 * now[name])
        assert not torch.equal(once[name], start[name])


def test_it_starts_as_the_student_and_stays_when_the_student_moves(student) -> None:
    teacher, pixels = Teacher(*student), torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        before = student[0].raw_image_features(pixels)
        assert torch.equal(teacher.encoder.raw_image_features(pixels), before)
        moved(*student)
        assert torch.equal(teacher.encoder.raw_image_features(pixels), before)
        assert not torch.equal(student[0].raw_image_features(pixels), before)
        teacher.follow(0.0)
        assert torch.equal(teacher.encoder.raw_image_features(pixels), student[0].raw_image_features(pixels))


def test_frozen_weights_are_shared(student) -> None:
    teacher = Teacher(*student)
    own = {id(parameter) for parameter in teacher.encoder.parameters()} - {id(parameter) for parameter in student[0].parameters()}
    assert own == {id(parameter) for parameter in adapter_parameters(teacher.encoder).values()}
    assert all(parameter.requires_grad for parameter in adapter_parameters(teacher.encoder).values())  # else no checkpoint holds them


def test_a_frozen_head_is_the_students(student) -> None:
    encoder, head = student
    teacher = Teacher(encoder, head.requires_grad_(False))
    assert teacher.head.last_layer is head.last_layer
    assert {name.partition("/")[0] for name in teacher.buffers()} == {"teacher"}
