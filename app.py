"""The web page, as a Space runs it: `python app.py`."""

from dsvlfs.page.layout import demo, main  # noqa: F401 (`demo` is what a Space looks for)

if __name__ == "__main__":
    main()
