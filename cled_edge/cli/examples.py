"""Two examples of each command, which its help ends in."""

_EXAMPLES = {
    "fuse": (
        "cled-edge fuse --infrared ir.mp4 --visible vis.mp4 --out fused.mp4",
        "cled-edge fuse --infrared 0 --visible 1 --out window --strength-visible 0.5",
    ),
    "calibrate": (
        "cled-edge calibrate --infrared ir.mp4 --visible vis.mp4",
        "cled-edge calibrate --infrared ir --visible vis --board 9x6 --square-mm 30 --distance-m 2 --distance-m 10",
    ),
    "explain": (
        "cled-edge explain --infrared ir.png --visible vis.png --out report --steps 3",
        "cled-edge explain --infrared ir.mp4 --visible vis.mp4 --out report --every 25 --pair 100",
    ),
    "verify": (
        "cled-edge verify",
        "cled-edge verify bundles/mine --backend openvino --backend onnxruntime",
    ),
    "build": (
        "cled-edge build --size 480x640",
        "cled-edge build bundles/mine --targets all-modes --log build.log",
    ),
    "doctor": (
        "cled-edge doctor",
        "cled-edge doctor --json",
    ),
    "score": (
        "cled-edge score --infrared night/infrared --visible night/visible --fused fused",
        "cled-edge score --infrared ir --visible vis --fused fused --restored restored --reference-visible clean",
    ),
    "inspect": (
        "cled-edge inspect bundles/mine",
        "cled-edge inspect bundles/mine --cost --size 480x640",
    ),
    "sign": (
        "cled-edge sign bundles/mine --key keys/private.pem",
        "cled-edge sign . --key ../private.pem",
    ),
    "keygen": (
        "cled-edge keygen keys",
        "cled-edge keygen ~/.config/cled-edge",
    ),
    "bench": (
        "cled-edge bench --backends onnxruntime,openvino:bf16 --out result.json",
        "cled-edge bench --scenario camera --rate-hz 15 --infrared ir.mp4 --visible vis.mp4",
    ),
    "bench compare": (
        "cled-edge bench compare openvino:fp32 openvino:bf16",
        "cled-edge bench compare before.json after.json --fail-if-slower",
    ),
    "bench report": (
        "cled-edge bench report result.json --out result.html",
        "cled-edge bench report before.json after.json --out both.html",
    ),
}


def examples_of(command: str) -> str:
    """Return the end of a command's help; an empty line keeps each example on a line of its own."""
    return "\n\n".join(("Examples:", *_EXAMPLES[command]))
