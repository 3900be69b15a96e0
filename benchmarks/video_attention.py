"""Do maps of attention show that receptive fields move with the eye, and nothing where they do not?

``python benchmarks/video_attention.py --write-docs`` simulates sessions whose receptive fields move with the pupil and
whose neurons have a gain of running, and a twin with the same cells, stimuli and behavior and neither; fits ``vivit``
and ``v1t`` to both, and to the first with behavior swapped between clips in training, too; and holds attention on
dev-test against behavior, beside the same networks before training. It writes table and figure into ``docs``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuroint.analysis.attention_behavior import behavior_in_attention
from neuroint.analysis.following import Following, Swap
from neuroint.analysis.video_attention import attention_of
from neuroint.config import TrialConfig, parse_sweep
from neuroint.data.base import DEV_TEST, Session
from neuroint.data.opening import open_sessions
from neuroint.data.simulators.v1 import simulate_v1
from neuroint.data.swapped import swap_behavior
from neuroint.fit import WEIGHTS_FILE, load_finished
from neuroint.metrics.scoring import pooled
from neuroint.model import PopulationModel, build_model, facts_of
from neuroint.report.attention_maps import ShownClip, draw_attention
from neuroint.runtime import LocalRuntime
from neuroint.seeding import seed_everything
from neuroint.train import score_weights, train_trial
