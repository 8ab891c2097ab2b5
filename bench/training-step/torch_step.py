"""The other side of the training-step benchmark: the same model and step in PyTorch eager, one step per line on stdin."""

import json
import resource
import sys
import time

import torch
import torch.nn.functional as F

case = json.loads(sys.argv[1])
model_config, batch, sequence = case["model"], case["batch"], case["sequence"]
torch.manual_seed(7)
torch.set_num_threads(1)
width, heads, kv_heads = model_config["width"], model_config["heads"], model_config["kvHeads"]
head_width, ffn, vocabulary = model_config["headWidth"], model_config["ffn"], model_config["vocabulary"]


def rms_norm(x, weight):
    return F.rms_norm(x, (width,), weight, model_config["normEpsilon"])


def rotate(x, cos, sin):
    half = head_width // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        linear = lambda into, out: torch.nn.Linear(into, out, bias=False)
        self.q, self.k = linear(width, heads * head_width), linear(width, kv_heads * head_width)
        self.v, self.o = linear(width, kv_heads * head_width), linear(heads * head_width, width)
        self.gate, self.up, self.down = linear(width, ffn), linear(width, ffn), linear(ffn, width)
        self.norm1 = torch.nn.Parameter(torch.ones(width))
        self.norm2 = torch.nn.Parameter(torch.ones(width))

    def forward(self, x, cos, sin):
        h = rms_norm(x, self.norm1)
        split = lambda y, count: y.view(batch, sequence, count, head_width).transpose(1, 2)
        q, k, v = split(self.q(h), heads), split(self.k(h), kv_heads), split(self.v(h), kv_heads)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(y.transpose(1, 2).reshape(batch, sequence, heads * head_width))
        h = rms_norm(x, self.norm2)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(vocabulary, width)
        self.layers = torch.nn.ModuleList(Layer() for _ in range(model_config["layers"]))
        self.norm = torch.nn.Parameter(torch.ones(width))
        self.head = torch.nn.Linear(width, vocabulary, bias=False)
        frequency = model_config["ropeTheta"] ** (-torch.arange(0, head_width, 2).float() / head_width)
        angles = torch.outer(torch.arange(sequence).float(), frequency)
        angles = torch.cat((angles, angles), -1)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, tokens):
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        return self.head(rms_norm(x, self.norm))


model = Model()
for parameter in model.parameters():
    if parameter.dim() == 2:
        torch.nn.init.uniform_(parameter, -0.035, 0.035)
decayed = [p for p in model.parameters() if p.dim() == 2]
plain = [p for p in model.parameters() if p.dim() == 1]
groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
optimizer = torch.optim.AdamW(groups, lr=3e-4, betas=(0.9, 0.95), eps=1e-8, fused=True)
tokens = torch.randint(vocabulary, (batch, sequence))
labels = torch.randint(vocabulary, (batch, sequence))


def cpu_ms():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return 1000 * (usage.ru_utime + usage.ru_stime)


def training_step():
    started, cpu_started = time.perf_counter(), cpu_ms()
    logits = model(tokens)
    loss = F.cross_entropy(logits.view(-1, vocabulary), labels.view(-1))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    graph_ms = (time.perf_counter() - started) * 1000
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    wall_ms = (time.perf_counter() - started) * 1000
    return {"graphMs": graph_ms, "wallMs": wall_ms, "cpuMs": cpu_ms() - cpu_started, "loss": loss.item()}


def report(fields):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({**fields, "peakRssKb": peak}), flush=True)


report({"ready": True, "version": torch.__version__})
for _ in sys.stdin:
    report(training_step())
