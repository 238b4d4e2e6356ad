#!/usr/bin/env python3
"""What a person sees: each line of tests/command_lines.txt, its exit code and its words, where nothing can be harmed.

    python3 tests/test_command_lines.py             every line
    tests/test_command_lines.py --show [WORD]...    prints what each line (with a word) says, and judges nothing
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))
import command_lines
import leftovers
import runner

TAKEOVER = runner.program()


def test_every_command_line_ends_with_its_code_and_its_words(folder):
    lines = [line for line in command_lines.table() if not line.in_guest]
    failed = 0
    for line, code, out, err in command_lines.run_all(lines, TAKEOVER, folder):
        wrong = command_lines.judge(line, code, out, err)
        if wrong:
            failed += 1
            print(f"{command_lines.TABLE.name}:{line.number}: {line.text}", *wrong, out.strip(), err.strip(), sep="\n  ")
    assert failed == 0, f"{failed} of {len(lines)} lines"


def test_there_are_enough_of_them(_):
    lines = command_lines.table()
    assert len(lines) >= 150, len(lines)
    assert len({(line.text, *line.marks.items()) for line in lines}) == len(lines), "a line stands there twice"
    assert all(line.words or line.on_stdout or line.absent for line in lines), "a line without words"
    assert {code for line in lines for code in line.codes} >= {0, 1, 2, 3}


def show(words):
    lines = [line for line in command_lines.table() if not line.in_guest]
    lines = [line for line in lines if not words or any(word in line.text for word in words)]
    with leftovers.test_folder() as folder:
        for line, code, out, err in command_lines.run_all(lines, TAKEOVER, folder):
            print(f"### {line.text}\n{out}{err}=> {code}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--show"]:
        show(sys.argv[2:])
    else:
        runner.main(sys.modules[__name__], sys.argv[1:])
