"""PCA against scikit-learn; IsoCLIP against its formula, computed in another way; the numbers of its table."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from common.errors import UserError
from inversion import subspaces
from inversion.subspaces import DROPPED, Dropped, dropped, isotropic, principal, project
from models.zoo import ModelSource, resolve

GENERATOR = np.random.default_rng(0)
IMAGE, TEXT = GENERATOR.normal(size=(6, 10)), GENERATOR.normal(size=(6, 8))  # [out, in]
FEATURES = GENERATOR.normal(size=(20, 10)).astype(np.float32)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_pca_is_scikit_learns():
    texts = GENERATOR.normal(size=(50, 9)) * np.arange(1, 10) + 3
    found = principal(texts, keep=5)
    components = PCA(n_components=5, svd_solver="full").fit(texts).components_
    np.testing.assert_allclose(found @ components.T, np.diag(np.diag(found @ components.T)), atol=1e-10)
    np.testing.assert_allclose(np.abs(np.diag(found @ components.T)), 1, atol=1e-10)


def test_pca_keeps_half_of_the_directions_and_does_not_centre_what_is_projected():
    found = principal(GENERATOR.normal(size=(50, 9)))
    assert found.shape == (4, 9)
    features = GENERATOR.normal(size=(7, 9)).astype(np.float32)
    np.testing.assert_allclose(project(features, found), unit(features.astype(np.float64) @ found.T), atol=1e-6)


@pytest.mark.parametrize(("rows", "keep"), [(4, 4), (50, 10), (50, 0)])
def test_pca_of_too_few_texts_or_dimensions(rows, keep):
    with pytest.raises(ValueError, match="do not have"):
        principal(GENERATOR.normal(size=(rows, 9)), keep)


def orthonormal_pairs(own, other, top, bottom):
    """The kept directions of ``own`` from the eigenvectors of Psi Psi^T: the singular values are the roots of its eigenvalues."""
    psi = own.T @ other
    values, vectors = np.linalg.eigh(psi @ psi.T)
    order = np.argsort(values)[::-1]
    return vectors[:, order[top : min(psi.shape) - bottom]]


@pytest.mark.parametrize(("top", "bottom"), [(0, 2), (1, 2), (2, 3), (3, 4)])
@pytest.mark.parametrize("modality", ["image", "text"])
def test_isoclip_is_its_formula(top, bottom, modality):
    own, other = (IMAGE, TEXT) if modality == "image" else (TEXT, IMAGE)
    kept = orthonormal_pairs(own, other, top, bottom)
    expected = own @ sum(np.outer(column, column) for column in kept.T)
    np.testing.assert_allclose(isotropic(IMAGE, TEXT, modality, Dropped(top, bottom)), expected, atol=1e-9)


def test_what_is_left_out_at_the_bottom_counts_from_the_narrower_tower_not_from_the_rank():
    # Psi is 10 x 8 of rank 6: the two least of 8 are the null space, and leaving out these two changes nothing.
    np.testing.assert_allclose(isotropic(IMAGE, TEXT, "text", Dropped(0, 2)), TEXT, atol=1e-9)
    assert np.linalg.matrix_rank(isotropic(IMAGE, TEXT, "text", Dropped(0, 3))) == 5
    np.testing.assert_allclose(isotropic(IMAGE, TEXT, "image", Dropped(0, 0)), IMAGE, atol=1e-9)


def test_a_tower_without_a_projection_counts_as_the_identity():
    leave_out = Dropped(1, 2)
    np.testing.assert_allclose(isotropic(None, TEXT, "image", leave_out), isotropic(np.eye(6), TEXT, "image", leave_out))
    np.testing.assert_allclose(isotropic(IMAGE, None, "image", leave_out), isotropic(IMAGE, np.eye(6), "image", leave_out))
    with pytest.raises(UserError, match="nothing to decompose; use --project pca"):
        isotropic(None, None, "image", leave_out)


def test_dropping_everything_is_refused():
    with pytest.raises(UserError, match="--drop-top 5 and --drop-bottom 3 leave none of this encoder's 8 singular directions"):
        isotropic(IMAGE, TEXT, "image", Dropped(5, 3))


def test_projected_rows_have_length_one_however_many_are_done_at_once(monkeypatch):
    expected = unit(FEATURES.astype(np.float64) @ IMAGE.T)
    monkeypatch.setattr(subspaces, "ROWS", 3)
    found = project(FEATURES, IMAGE)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_row_without_any_part_in_the_subspace_is_zero():
    np.testing.assert_array_equal(project(np.array([[0, 0, 1]], np.float32), np.eye(3)[:2]), [[0, 0]])


def test_published_numbers():
    # arXiv 2603.19862: CLIP ViT-B/32, images 150 / 50, texts 20 / 100.
    assert dropped(resolve("clip"), "image") == (150, 50)
    assert dropped(resolve("clip"), "text") == (20, 100)
    assert dropped(resolve("ViT-B-16-SigLIP2/webli"), "image") == (350, 50)
    for architecture, pretrained in DROPPED:
        resolve(f"{architecture}/{pretrained}")  # a name that open_clip knows


def test_what_the_user_says_comes_first():
    assert dropped(resolve("clip"), "image", 0, 7) == (0, 7)


@pytest.mark.parametrize(("name", "modality"), [("tiny", "image"), ("ViT-B-16-SigLIP2/webli", "text")])
def test_an_encoder_that_the_table_does_not_know(name, modality):
    with pytest.raises(UserError, match=f"no published numbers for the {modality} side of '{name}'; say with --drop-top and --drop-bottom"):
        dropped(resolve(name), modality)


@pytest.mark.parametrize(("top", "bottom", "lacking"), [(3, None, "--drop-bottom"), (None, 3, "--drop-top")])
def test_one_end_alone(top, bottom, lacking):
    with pytest.raises(UserError, match=f"give the other with {lacking}"):
        dropped(ModelSource("small", "open_clip", "small"), "image", top, bottom)
