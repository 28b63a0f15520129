"""PyTorch tensors as they are: a WRITE from one tensor into another, with a notification.

python tensors.py
"""

from __future__ import annotations

import torch

import kvx


def main() -> None:
    with kvx.Engine("prefill") as prefill, kvx.Engine("decode") as decode:
        # 64 blocks of a layer: bfloat16, which numpy does not know.
        source = torch.randn(64, 16, 8, 128).to(torch.bfloat16)
        target = torch.zeros_like(source)
        block = source[0].numel() * source.element_size()
        region = decode.register(target)
        peer = prefill.add_peer(decode.metadata([region]))

        blocks = torch.randperm(64)[:24]
        lengths = torch.full((24,), block)
        ours = prefill.spans(prefill.register(source), (blocks * block).numpy(), lengths.numpy())
        theirs = peer.spans_at((region.address + blocks * block).numpy(), lengths.numpy())
        report = kvx.prepare("WRITE", ours, theirs).post(notification=b"layer 0").wait()
        told = decode.wait_notification(10)
        assert told is not None
        assert torch.equal(target[blocks], source[blocks])
        print(f"{told.data.decode()}: {report.bytes} bytes in {report.runs} runs are equal")


if __name__ == "__main__":
    main()
