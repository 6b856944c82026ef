"""What the web page (`app.py`) does, apart from its layout."""
