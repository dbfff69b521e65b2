"""Outcomes, the table that they are read from, and the join with a table of scores."""

import pytest

from common.errors import UserError
from study.outcomes import Outcome, combinations, gain, matching, measures_of, select
from study.outcomes_table import joined, read_outcomes, read_scores
from tests.study.examples import GAINS, REAL, write_scores

HEAD = "model,tuning,task,zero_shot_accuracy,accuracy_after"


def table(tmp_path, *lines, name="outcomes.csv"):
    path = tmp_path / name
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def refused(action, *words):
    with pytest.raises(UserError) as raised:
        action()
    for word in words:
        assert word in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_real_outcomes_have_the_published_gains():
    outcomes = read_outcomes(REAL)
    assert {of.task: round(of.gain, 3) for of in outcomes} == pytest.approx(GAINS, abs=0.0015)  # published from unrounded accuracies
    assert [of.mean_change_elsewhere for of in outcomes] == [-0.049, -0.040, -0.065, -0.162, -0.167, -0.208, -0.140, -0.109]
    assert measures_of(outcomes) == ["zero_shot"]
    assert outcomes[0].score("zero_shot") == 0.632


def test_gain():
    assert gain(0.5, 0.75, "x") == 0.5
    assert gain(0.5, 0.25, "x") == -0.5
    refused(lambda: gain(1.0, 1.0, "MNIST"), "zero-shot accuracy of MNIST is 1", "not defined")


def test_one_column_per_measure(tmp_path):
    path = table(tmp_path, f"{HEAD},IIMM,note,gbc_of_mine,nothing", "clip,full,A,0.5,0.8,0.4,good,-3,", "clip,full,B,0.5,0.9,nan,fair,inf,")
    first, second = read_outcomes(path)
    assert dict(first.scores) == {"iimm": 0.4, "gbc_of_mine": -3}  # the released name is known; words and empty columns are no scores
    assert dict(second.scores) == {}
    assert (first.mean_change_elsewhere, second.score("iimm"), second.score("zero_shot")) == (None, None, 0.5)


def test_one_row_per_measure(tmp_path):
    lines = ("clip,full,A,0.5,0.8,IIMM,0.4", "clip,full,B,0.5,0.9,iimm,", "clip,full,A,0.5,0.8,gap,1.1", "clip,full,B,0.5,0.9,gap,1.2")
    first, second = read_outcomes(table(tmp_path, f"{HEAD},measure,score", *lines))
    assert (first.task, dict(first.scores), second.task, dict(second.scores)) == ("A", {"iimm": 0.4, "gap": 1.1}, "B", {"gap": 1.2})


def test_spaces_and_the_mark_of_spreadsheets(tmp_path):
    path = tmp_path / "outcomes.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f"{HEAD}, iimm\nclip, full, A ,0.5, 0.8,0.4\n".encode())
    (outcome,) = read_outcomes(path)
    assert (outcome.key, dict(outcome.scores)) == (("clip", "full", "A"), {"iimm": 0.4})


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((HEAD, "clip,full,A,46.0,99.0"), ("line 2", "zero_shot_accuracy is 46", "per cent, divide by 100")),
        ((HEAD, "clip,full,A,0.4,0.5", "clip,full,B,0.4,99"), ("line 3", "accuracy_after is 99", "divide by 100")),
        ((HEAD, "clip,full,A,-0.4,0.5"), ("zero_shot_accuracy is -0.4", "[0, 1]")),
        ((HEAD, "clip,full,A,460,0.5"), ("expected a share in [0, 1]",)),
        ((f"{HEAD},mean_change_elsewhere", "clip,full,A,0.4,0.5,-16.2"), ("mean_change_elsewhere is -16.2", "divide by 100")),
        ((HEAD, "clip,full,A,good,0.5"), ("line 2: 'good' in column 'zero_shot_accuracy' is not an accuracy",)),
        ((HEAD, "clip,full,A,0.4,nan"), ("'nan' in column 'accuracy_after'", "leave out rows")),
        ((HEAD, "clip,full,A,0.4,inf"), ("'inf' in column 'accuracy_after'",)),
        ((HEAD, "clip,full,A,1.0,1.0"), ("zero-shot accuracy of clip, full, A is 1",)),
        ((HEAD, "clip,,A,0.4,0.5"), ("line 2: the tuning is empty",)),
        ((HEAD, "clip,full,A,0.4,0.5", "clip,full,A,0.4,0.6"), ("line 3", "second row of clip, full, A", "average")),
        ((f"{HEAD},iimm", "clip,full,A,0.4,0.5,high"), ("'high' in column 'iimm' is not a number",)),
        ((f"{HEAD},iimm,IIMM", "clip,full,A,0.4,0.5,1,1"), ("measure 'iimm' twice", "'IIMM'")),
        ((f"{HEAD},measure,score", "clip,full,A,0.4,0.5,iimm,high"), ("line 2: the score 'high' is not a number",)),
        (
            (f"{HEAD},measure,score", "clip,full,A,.4,.5,iimm,1", "clip,full,A,.4,.6,gap,1"),
            ("line 3", "differs from that of an earlier line"),
        ),
        ((f"{HEAD},measure,score", "clip,full,A,.4,.5,iimm,1", "clip,full,A,.4,.5,IIMM,2"), ("line 3", "a second score 'iimm'")),
        ((HEAD,), ("has no rows",)),
        (("model,tuning,dataset,zero_shot_accuracy,accuracy_after", "a,b,c,0,1"), ("no column 'task'",)),
        (
            ("model,tuning,task,zeroshot_accuracy,accuracy_after", "a,b,c,0,1"),
            ("no column 'zero_shot_accuracy'", "'zeroshot_accuracy' meant"),
        ),
        ((HEAD, "clip,full"), ("number of cells",)),
    ],
)
def test_what_is_wrong_with_a_table(tmp_path, lines, words):
    refused(lambda: read_outcomes(table(tmp_path, *lines)), *words)


def test_no_table(tmp_path):
    refused(lambda: read_outcomes(tmp_path / "absent.csv"), "No such file", "absent.csv")
    refused(lambda: read_outcomes(tmp_path), "is a folder")


def several():
    return [Outcome(model, tuning, "A", 0.5, 0.6) for model, tuning in (("clip", "full"), ("clip", "lora"), ("siglip", "full"))]


def test_select():
    assert combinations(several()) == [("clip", "full"), ("clip", "lora"), ("siglip", "full")]
    assert [of.key for of in select(several(), "clip", "lora")] == [("clip", "lora", "A")]
    assert [of.key for of in select(several(), tuning="lora")] == [("clip", "lora", "A")]
    assert len(matching(several(), "clip", None)) == 2
    refused(lambda: select(several()), "--model 'clip' --tuning 'full'; --model 'clip' --tuning 'lora'; --model 'siglip' --tuning 'full'")
    refused(
        lambda: select(several(), "siglip", "lora"),
        "No outcome is of --model 'siglip' with --tuning 'lora'",
        "--model 'clip' --tuning 'full'",
    )
    refused(lambda: select(several(), "sigclip"), "Unknown model of the outcomes 'sigclip'", "'siglip'")
    refused(lambda: select(several(), None, "adapter"), "Unknown tuning of the outcomes 'adapter'", "full, lora")


def test_scores_are_joined_by_model_and_task_whatever_the_tuning(tmp_path):
    outcomes = [Outcome("clip", tuning, "A", 0.5, 0.6) for tuning in ("full", "lora")] + [Outcome("siglip", "full", "A", 0.5, 0.6)]
    path = table(tmp_path, "data,model,finetuning,split,measure,score", "A,clip,none,train,IIMM,0.4", "A,clip,lora,train,IIMM,0.9")
    found = joined(outcomes, read_scores(path), path)
    assert [dict(of.scores) for of in found] == [{"iimm": 0.4}, {"iimm": 0.4}, {}]
    assert dict(found[0].score_splits) == {"iimm": "train"}


def test_the_names_of_the_transfer_table(tmp_path):
    path = table(tmp_path, "train_data,model,metric,score,stderr", "A,clip,iimm,0.4,0.1", "A,clip,leep,,")
    assert read_scores(path) == {("clip", "A"): {"iimm": (0.4, "")}}


def test_the_same_score_twice_is_one(tmp_path):
    path = table(tmp_path, "data,model,split,measure,score", "A,clip,train,iimm,0.4", "A,clip,train,IIMM,0.40000000000001")
    assert read_scores(path) == {("clip", "A"): {"iimm": (0.4, "train")}}


def test_ambiguous_scores(tmp_path):
    rows = ("A,clip,train,iimm,0.4", "A,clip,test,iimm,0.5", "A,clip,test,gap,0.5", "A,clip,test,gap,0.6")
    path = table(tmp_path, "data,model,split,measure,score", *rows)
    refused(lambda: read_scores(path), "line 3", "'iimm' of clip, A is 0.4 on the split 'train' and 0.5 on 'test'", "--split")
    assert read_scores(path, "train") == {("clip", "A"): {"iimm": (0.4, "train")}}
    refused(lambda: read_scores(path, "test"), "line 5", "'gap' of clip, A is 0.6 here and 0.5 in an earlier row")
    refused(lambda: read_scores(path, "val"), "no score on the split 'val' of untuned encoders")


def test_scores_of_other_things(tmp_path):
    path = write_scores(tmp_path / "scores.csv")
    other = [Outcome("siglip", "full", "A", 0.5, 0.6)]
    refused(lambda: joined(other, read_scores(path), path), "no score of any outcome's model and task", "clip, SUN397", "siglip, A")
    both = [Outcome("clip", "full", "DTD", 0.5, 0.6, scores={"iimm": 0.1})]
    refused(lambda: joined(both, read_scores(path), path), "Both the outcomes and", "'iimm' of clip, DTD")
    refused(lambda: read_scores(table(tmp_path, "data,model,score", "A,clip,1")), "no column 'measure'")
    refused(
        lambda: read_scores(table(tmp_path, "data,model,measure,score", "A,clip,iimm,high")), "line 2: the score 'high' is not a number"
    )


def test_scores_as_released_are_not_those_of_a_new_task(tmp_path):
    rows = ("A,clip,gbc_spherical,-2,definition", "A,clip,gbc_spherical,-9,as released")
    assert read_scores(table(tmp_path, "data,model,measure,score,variant", *rows)) == {("clip", "A"): {"gbc_spherical": (-2, "")}}
    only = table(tmp_path, "data,model,measure,score,variant", rows[1])
    refused(lambda: read_scores(only), "no score on untuned encoders (finetuning 'none') by the measures' definition")
