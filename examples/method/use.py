"""The same from Python: plan, save, quantize."""

import sys

import torch

from quantsuite.adapters.loading import load_model
from quantsuite.linear import QuantizedLinear, quantized
from quantsuite.methods import make_plan
from quantsuite.scheme import Scheme

model = load_model("tiny", device="cpu", dtype="bf16").model
plan = make_plan(model, Scheme.parse("int4-g64@mine"), places=["mine.py"])
plan.save(sys.argv[1])

with quantized(model, plan, "real"), torch.inference_mode():
    for path, layer in model.named_modules():
        if isinstance(layer, QuantizedLinear):
            print(path, layer.scheme)
    print("logits", list(model(input_ids=torch.tensor([[1, 2, 3]])).logits.shape))
