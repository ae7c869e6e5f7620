"""The page: static files of page/."""

from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse

from sonic_ms.live.server import CALL
from sonic_ms.serve.problems import Problem

router = APIRouter(include_in_schema=False)
FOLDER = Path(__file__).parent / "page"


@router.get("/")
def index():
    return page_file("index.html")


@router.get("/page/{name:path}")
def page_file(name: str):
    path = CALL if name == CALL.name else (FOLDER / name).resolve()
    if (path != CALL and FOLDER not in path.parents) or not path.is_file():
        raise Problem(404, "not_found", "there is nothing at this address")
    return FileResponse(path, headers={"Cache-Control": "no-cache"})
