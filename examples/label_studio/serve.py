"""Serves the model to Label Studio; the README beside this file has the commands.

python examples/label_studio/serve.py --state accepted --port 9090
"""

import argparse
from pathlib import Path
from typing import Any

import torch
import uvicorn
from backend import Backend
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from dsvlfs import DSVLFSModel, InputError, __version__
from dsvlfs.labelling.project import read_project


def app_of(backend: Backend) -> FastAPI:
    """Label Studio's interface for machine learning backends, over HTTP.

    Args:
        backend: that answers.
    """
    app = FastAPI(title="dsvlfs", version=__version__)

    @app.exception_handler(InputError)
    def _said(_: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=422)

    @app.get("/")
    @app.get("/health")
    def health() -> dict[str, Any]:
        return {"status": "UP", "model_class": "dsvlfs"}

    @app.post("/setup")
    def setup(asked: dict[str, Any]) -> dict[str, Any]:
        return {"model_version": backend.version(_number(asked["project"]), asked["schema"])}

    @app.post("/predict")
    def predict(asked: dict[str, Any]) -> dict[str, Any]:
        return {"results": backend.predict(_number(asked["project"]), asked["label_config"], asked["tasks"])}

    @app.post("/webhook", status_code=201)
    def webhook(asked: dict[str, Any]) -> dict[str, Any]:
        backend.fit(asked.pop("action"), asked)
        return {"status": "ok"}

    return app


def _number(project: str) -> str:
    """A project's number: Label Studio adds the time that it was made at."""
    return project.partition(".")[0]


def main() -> None:
    """Serves until it is stopped."""
    parser = argparse.ArgumentParser(description="Serve dsvlfs to Label Studio.")
    parser.add_argument("--state", type=Path, required=True, help="folder for what people accept")
    parser.add_argument("--project", type=Path, help="supports to begin with, as dsvlfs label --project takes them")
    parser.add_argument("--model", default="dsvlfs-tiny", help="checkpoint (%(default)s)")
    parser.add_argument("--instances", action="store_true", help="a brush mask an object, not a class")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s)")
    parser.add_argument("--port", type=int, default=9090, help="port (%(default)s)")
    given = parser.parse_args()
    try:
        classes = read_project(given.project) if given.project else []
        model = DSVLFSModel.from_pretrained(given.model)
    except InputError as error:
        parser.error(str(error))
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    backend = Backend(model, given.state, classes, instances=given.instances)
    uvicorn.run(app_of(backend), host=given.host, port=given.port)


if __name__ == "__main__":
    main()
