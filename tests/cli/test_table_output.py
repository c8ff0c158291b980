from fake_results import result
from iadbe.cli.table_output import print_tables
from iadbe.results.ranking import ranking


def test_a_table_is_plain_where_there_is_no_terminal(capsys):
    results = [result("padim", values={"image_auroc": 0.5}), result("dfm", values={"image_auroc": 0.75})]
    print_tables(ranking([*results, result("dfkde", error="broken")], ["image_auroc"]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == ["detector", "image", "AUROC"]
    assert [line.split()[:2] for line in lines[2:5]] == [["dfm", "0.750*"], ["padim", "0.500"], ["dfkde¹", "failed"]]
    assert len(lines[2]) == len(lines[1]), "columns are aligned"
    assert lines[5].startswith("¹ dfkde: 1 of 1 runs failed: broken")
