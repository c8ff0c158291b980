import os
import signal
import subprocess
import sys
import time

import numpy as np
from PIL import Image
from safetensors.torch import load_file

from iadbe.layers.blocks.pdn import cached, read_pdn

QUICK = ("--backbone", "resnet10t", "--layers", "1,2", "--weights", "none", "--width", "12", "--side", "64")
QUICK = (*QUICK, "--batch", "2", "--crop", "4", "--device", "cpu")


def draw(folder):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 255, (70, 90, 3), np.uint8)).save(folder / f"{number}.png")
    return folder


def test_a_teacher_is_distilled_and_named(iadbe, elsewhere):
    output = iadbe("distil", *QUICK, "--steps", "3", "--images", draw(elsewhere / "photos"), "--out", "t.safetensors")
    assert output.code == 0, output.err
    assert "t.safetensors: loss " in output.out
    assert "3 images" in output.err
    assert read_pdn(elsewhere / "t.safetensors").width == 12


def test_without_a_file_it_lies_in_the_cache_and_without_images_textures_are_drawn(iadbe, elsewhere):
    output = iadbe("distil", *QUICK, "--steps", "2", "--views", "4", "--size", "M", "--features", "off")
    assert output.code == 0, output.err
    assert "drawn textures" in output.err
    assert str(elsewhere) in str(cached("M"))
    assert read_pdn(cached("M")).size == "M"


def test_killed_and_repeated_it_gives_the_same_weights(iadbe, elsewhere):
    photos = draw(elsewhere / "photos")
    options = (*QUICK, "--steps", "60", "--images", str(photos), "--threads", "1")
    assert iadbe("distil", *options, "--out", "whole.safetensors").code == 0
    # a checkpoint after every step
    code = (
        "import sys; from iadbe.running import distillation; distillation.CHECKPOINT_SECONDS = -1; "
        "from iadbe.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "distil", *options, "--out", "cut.safetensors"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = elsewhere / "cut.partial.safetensors"
    while not checkpoint.is_file():
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    output = iadbe("distil", *options, "--out", "cut.safetensors")
    assert output.code == 0, output.err
    assert "continues from" in output.err or (elsewhere / "cut.safetensors").is_file()
    whole, cut = load_file(elsewhere / "whole.safetensors"), load_file(elsewhere / "cut.safetensors")
    assert all((whole[name] == cut[name]).all() for name in whole)
    assert not checkpoint.is_file()


def test_mistakes_are_one_sentence(iadbe):
    assert "whole numbers with commas" in iadbe("distil", "--layers", "two").err
    assert "there is no image in" in iadbe("distil", *QUICK, "--images", "nowhere").err
    assert iadbe("distil", "--size", "L").code == 2
    assert "must be above 0" in iadbe("distil", *QUICK, "--steps", "0").err
