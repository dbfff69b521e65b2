"""UCF101: 101 actions, each video as its middle frame; 9537 images for training, 3783 for testing (Soomro et al., 2012).

Layout: the middle frames that CoOp published, whose folders part the words of a class, beside the official lists::

    ucf101/UCF-101-midframes/Apply_Eye_Makeup/v_ApplyEyeMakeup_g08_c01.jpg
    ucf101/ucfTrainTestlist/classInd.txt               lines 1 ApplyEyeMakeup
    ucf101/ucfTrainTestlist/{train,test}list01.txt     lines ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi, in train with the class
"""

from __future__ import annotations

import re
from pathlib import Path

from datasets.places import find
from datasets.sources.listed import damaged, labelled, listed_task, rows, whole_number
from datasets.task import Task, read_lines


def ucf101_task(name: str, split: str, data_dir: Path) -> Task:
    """The split ``train`` or ``test``, in the order of its list; class names are the actions as words, "Apply Eye Makeup"."""
    listed = find(name, data_dir, f"ucf101/ucfTrainTestlist/{split}list01.txt")
    root = find(name, data_dir, "ucf101/UCF-101-midframes").parent
    actions = _actions(name, find(name, data_dir, "ucf101/ucfTrainTestlist/classInd.txt"))
    images = []
    for line in read_lines(listed):
        action, _, video = line.split()[0].partition("/")
        images.append((f"UCF-101-midframes/{'_'.join(words(action))}/{video.removesuffix('.avi')}.jpg", action))
    names = [" ".join(words(action)) for action in actions]
    return listed_task(name, split, root, listed, labelled(name, listed, images, actions), names)


def words(action: str) -> list[str]:
    """``["Apply", "Eye", "Makeup"]`` of ``ApplyEyeMakeup``."""
    return re.findall("[A-Z][^A-Z]*", action)


def _actions(name: str, path: Path) -> list[str]:
    listed = rows(name, path, 2)
    if [whole_number(name, path, number) for number, _ in listed] != list(range(1, len(listed) + 1)):
        raise damaged(name, path, "its classes are not numbered from 1 up")
    if wordless := [action for _, action in listed if not words(action)]:
        raise damaged(name, path, f"'{wordless[0]}' is no action in words, such as 'ApplyEyeMakeup'")
    return [action for _, action in listed]
