"""Asks the page for a mask, as a program does.

    dsvlfs demo &
    python examples/call_page.py http://127.0.0.1:7860

It needs gradio_client, which comes with gradio. The page's footer lists all functions with their parameters.
"""

import argparse
from pathlib import Path

from gradio_client import Client, handle_file

EXAMPLES = Path(__file__).parents[1] / "dsvlfs" / "page" / "examples"


def main() -> None:
    """Prints the files of the mask, the overlay and the COCO JSON, and the areas."""
    parser = argparse.ArgumentParser(description="Ask the page for a mask of the penguin.")
    parser.add_argument("address", help="of the page, or the name of a Space")
    client = Client(parser.parse_args().address)
    masks, overlays, coco, report = client.predict(
        class_name="penguin",
        queries=[handle_file(EXAMPLES / "penguin_query.jpg")],
        support_photos=[handle_file(EXAMPLES / "penguin_support.jpg")],
        support_masks=[handle_file(EXAMPLES / "penguin_support_mask.png")],
        api_name="/segment",
    )
    print(*masks, *overlays, coco, *report, sep="\n")


if __name__ == "__main__":
    main()
