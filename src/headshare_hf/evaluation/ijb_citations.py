"""Where the protocols were published."""

IJBC_CITATION = """\
@inproceedings{maze2018iarpa,
  title = {IARPA Janus Benchmark - C: Face Dataset and Protocol},
  author = {Maze, Brianna and Adams, Jocelyn and Duncan, James A. and Kalka, Nathan and Miller, Tim and Otto, Charles and
            Jain, Anil K. and Niggel, W. Tyler and Anderson, Janet and Cheney, Jordan and Grother, Patrick},
  booktitle = {International Conference on Biometrics},
  year = {2018}
}
"""
