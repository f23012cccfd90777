"""Puts the results of `make demo` into the documentation: figures, JSON, and README's table."""

import json
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "build/demo"
BEGIN, END = "<!-- demo table -->", "<!-- end of demo table -->"


def demo_table(summary: dict) -> str:
    """README's table, and the machine that it was measured on."""
    lines = [
        "| model | accuracy | file, kB | ms per image, batch 1 | images/s, batch 64 "
        "| file, x FP32 | speed, batch 1 | speed, batch 64 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in summary["rows"]:
        ratio = row["ratio_to_fp32"]
        lines.append(
            f"| {row['model']} | {row['accuracy']:.2%} | {row['file_bytes'] / 1000:,.0f} "
            f"| {row['ms_per_image_batch_1']:.3f} | {row['images_per_second_batch_64']:,.0f} "
            f"| {ratio['file_bytes']:.2f} | {ratio['speed_batch_1']:.1f}x "
            f"| {ratio['speed_batch_64']:.1f}x |"
        )
    machine = summary["machine"]
    lines.append("")
    lines.append(
        f"{machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}; FP32 is "
        "TorchScript after `torch.jit.optimize_for_inference`. "
        "From [docs/results/demo.json](docs/results/demo.json), written by `make publish-demo`."
    )
    return "\n".join(lines)


def main() -> None:
    """Copies `build/demo` into docs/ and rewrites README between its markers."""
    results, figures = ROOT / "docs/results", ROOT / "docs/figures"
    for folder in (results, figures):
        folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(DEMO / "summary.json", results / "demo.json")
    for picture in DEMO.glob("*.png"):
        shutil.copy(picture, figures)
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    _, after = rest.split(END)
    table = demo_table(json.loads((results / "demo.json").read_text()))
    readme.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


if __name__ == "__main__":
    main()
