"""The proof of one minted reading, and the page that checks it."""

from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from gridtokenx_cloud.adapters.http_api.identity import Caller, Parts
from gridtokenx_cloud.adapters.http_api.problems import ProblemError
from gridtokenx_cloud.errors import NotFoundError
from gridtokenx_cloud.proof import make_proof, proof_to_json

router = APIRouter(tags=["data"])

_PAGE = Path(__file__).parents[2] / "web" / "proof.html"


@router.get("/readings/{reading_id}/proof", response_class=Response)
def proof(reading_id: int, caller: Caller, parts: Parts) -> Response:
    """Return what proves that a reading is in a mint; anybody can check it, see `/proof`."""
    try:
        source = parts.proofs(reading_id)
    except NotFoundError as exc:
        raise ProblemError(404, "not_found", str(exc)) from exc
    if caller.user_id not in (None, source.user_id):
        # The same as for a reading that is not minted: what belongs to others is not even there.
        text = f"reading {reading_id} is not minted; there is nothing to prove yet"
        raise ProblemError(404, "not_found", text)
    return Response(proof_to_json(make_proof(source)), media_type="application/json")


async def proof_page() -> FileResponse:
    """Return the page; it needs no account, and sends nothing anywhere."""
    return FileResponse(_PAGE, headers={"Cache-Control": "no-cache"})
