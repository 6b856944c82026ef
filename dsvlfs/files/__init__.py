"""Which files are photos, how text and JSON are read, and how files are written: whole or not at all."""

from .reading import (
    PHOTO_SUFFIXES,
    checked,
    open_regular,
    place_of,
    read_json,
    read_json_lines,
    read_text,
    reading_fault,
)
from .writing import (
    append_line,
    os_error,
    recover_folder,
    whole_contents,
    whole_file,
    whole_files,
    whole_folder,
    write_bytes,
    write_error,
    write_image,
    write_json,
    write_text,
)

__all__ = [
    "PHOTO_SUFFIXES",
    "append_line",
    "checked",
    "open_regular",
    "os_error",
    "place_of",
    "read_json",
    "read_json_lines",
    "read_text",
    "reading_fault",
    "recover_folder",
    "whole_contents",
    "whole_file",
    "whole_files",
    "whole_folder",
    "write_bytes",
    "write_error",
    "write_image",
    "write_json",
    "write_text",
]
