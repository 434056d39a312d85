"""Set up the demo's installation with the same commands an operator and an installer type."""

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from solders.keypair import Keypair

from demo.broker import CLOUD_USER, password_file, password_of
from demo.chain import hurried_blocks
from demo.place import Place, command, read_json, secret_file, write_private
from demo.processes import run
from demo.town import METERS, OWNERS, RATED_POWER_W

SLOT_S = 5
"""Length of a slot in the demo; a real installation has 900."""


@dataclass(frozen=True)
class Installation:
    """What the running demo needs to know of it."""

    gateways: dict[str, str]
    """owner -> gateway id"""
    wallets: dict[str, str]
    """owner -> wallet address"""
    mint: str
    cloud_env: dict[str, str]


def gateway_ids(place: Place) -> dict[str, str]:
    """Make each owner's gateway key with `gtx-agent init` on the first call; return the ids."""
    ids: dict[str, str] = {}
    for owner in OWNERS:
        folder = place.folder / f"agent-{owner}"
        folder.mkdir(exist_ok=True, mode=0o700)
        known = read_json(folder / "gateway.json")
        if known is None:
            said = run(
                [
                    command("gtx-agent"),
                    "keygen",
                    "--key-file",
                    str(folder / "gateway.key"),
                    "--json",
                ],
                {},
                f"making the gateway key of {owner}",
            )
            write_private(folder / "gateway.json", said)
            known = json.loads(said)
        ids[owner] = str(known["gateway_id"])
    return ids


def cloud_environment(place: Place) -> dict[str, str]:
    """Return the cloud's environment as far as it is known before there is a mint."""
    secrets_folder = place.folder / "secrets"
    secrets_folder.mkdir(exist_ok=True, mode=0o700)
    for name in ("mint-authority", "fee-payer", "cloud"):
        _keypair_file(secrets_folder / f"{name}.json")
    secret_file(secrets_folder / "marker-secret", 32)
    password_of(place, CLOUD_USER)
    page = f"http://127.0.0.1:{place.ports['http']}"
    return {
        "GTX_CLOUD_ENVIRONMENT": "development",
        "GTX_CLOUD_DATABASE_URL": f"sqlite:///{place.path('cloud.db')}",
        "GTX_CLOUD_MQTT_URL": f"mqtt://127.0.0.1:{place.ports['mqtt']}",
        "GTX_CLOUD_MQTT_USERNAME": CLOUD_USER,
        "GTX_CLOUD_MQTT_PASSWORD": f"file:{password_file(place, CLOUD_USER)}",
        "GTX_CLOUD_CLOUD_KEY": f"file:{secrets_folder / 'cloud.json'}",
        "GTX_CLOUD_SOLANA_RPC_URLS": f"http://127.0.0.1:{place.ports['rpc']}",
        "GTX_CLOUD_HTTP_BIND": f"127.0.0.1:{place.ports['http']}",
        "GTX_CLOUD_METRICS_BIND": f"127.0.0.1:{place.ports['metrics']}",
        "GTX_CLOUD_ALLOWED_ORIGINS": f"{page},http://localhost:{place.ports['http']}",
        "GTX_CLOUD_SESSION_TTL_SECS": "86400",
        "GTX_CLOUD_LOG_FORMAT": "text",
        "WEBSOCKET_BIND": f"127.0.0.1:{place.ports['ws']}",
        "BLOCKCHAIN_MINT_AUTHORITY_KEY": f"file:{secrets_folder / 'mint-authority.json'}",
        "BLOCKCHAIN_FEE_PAYER_KEY": f"file:{secrets_folder / 'fee-payer.json'}",
        "BLOCKCHAIN_MARKER_SECRET": f"file:{secrets_folder / 'marker-secret'}",
        "TOKENIZATION_AUTO_TRIGGER_ON_SUBMIT": "true",
        "TOKENIZATION_POLLING_INTERVAL_SECS": "10",
    }


def install(place: Place, gateways: dict[str, str], rpc_url: str) -> Installation:
    """Create mint, schema, users, gateways and meters once; write the agents' configuration."""
    env = cloud_environment(place)
    wallets = {owner: _keypair_file(place.path(f"wallet-{owner}.json")) for owner in OWNERS}
    done = read_json(place.path("installation.json"))
    if done is None:
        with hurried_blocks(rpc_url):
            done = _create_mint(env)
        write_private(place.path("installation.json"), json.dumps(done))
    env |= {
        "BLOCKCHAIN_MINT_ADDRESS": str(done["mint_address"]),
        "BLOCKCHAIN_GENESIS_HASH": str(done["genesis_hash"]),
    }
    gtx = command("gtx-cloud")
    run([gtx, "migrate"], env, "creating the store")
    if not place.path("registered").exists():
        _register(env, gateways, wallets)
        place.path("registered").touch()
    for owner in OWNERS:
        _write_agent_config(place, owner, gateways[owner], str(done["mint_address"]))
    return Installation(gateways, wallets, str(done["mint_address"]), env)


def _create_mint(env: dict[str, str]) -> dict[str, object]:
    said = run(
        [command("gtx-cloud"), "mint-account", "create", "--decimals", "9", "--airdrop", "--json"],
        env,
        "creating the token",
    )
    made: dict[str, object] = json.loads(said)
    return made


def _register(env: dict[str, str], gateways: dict[str, str], wallets: dict[str, str]) -> None:
    gtx = command("gtx-cloud")
    known = {
        row["user_id"] for row in json.loads(run([gtx, "user", "list", "--json"], env, "list"))
    }
    for owner in OWNERS:
        if owner in known:
            continue
        run([gtx, "user", "add", owner, "--wallet", wallets[owner]], env, f"adding {owner}")
    known = {
        row["gateway_id"]
        for row in json.loads(run([gtx, "gateway", "list", "--json"], env, "list"))
    }
    for owner in OWNERS:
        if gateways[owner] not in known:
            argv = [gtx, "gateway", "add", gateways[owner], "--name", f"{owner}'s gateway"]
            run(argv, env, f"adding the gateway of {owner}")
    known = {
        row["meter_id"] for row in json.loads(run([gtx, "meter", "list", "--json"], env, "list"))
    }
    for meter in METERS:
        if meter.meter_id in known:
            continue
        argv = [gtx, "meter", "add", meter.meter_id, "--gateway", gateways[meter.owner]]
        argv += ["--user", meter.owner, "--rated-power-w", str(RATED_POWER_W)]
        argv += ["--resolution-wh", str(meter.resolution_wh)]
        run(argv, env, f"adding the meter {meter.meter_id}")


def sign_in_links(place: Place, env: dict[str, str]) -> dict[str, str]:
    """Make a token for each owner and an admin, good for a day; return the links that use them."""
    page = f"http://127.0.0.1:{place.ports['http']}/#token="
    links: dict[str, str] = {}
    for who in (*OWNERS, "admin"):
        label = f"demo-{who}-{secrets.token_hex(4)}"
        argv = [command("gtx-cloud"), "api-token", "create", label, "--days", "1", "--json"]
        argv += ["--role", "admin"] if who == "admin" else ["--role", "owner", "--user", who]
        made = json.loads(run(argv, env, f"making the link of {who}"))
        links[who] = page + (made[0] if isinstance(made, list) else made)["token"]
    return links


def agent_config(place: Place, owner: str) -> Path:
    return place.folder / f"agent-{owner}" / "agent.toml"


def bus_url(place: Place, profile: str) -> str:
    """Return where the agent finds the simulated meter of *profile*."""
    urls = {
        "eastron-sdm630": f"tcp://127.0.0.1:{place.ports['sdm630']}",
        "schneider-iem3155": f"tcp://127.0.0.1:{place.ports['iem3155']}",
        "abb-b23": f"rtu+tcp://127.0.0.1:{place.ports['b23']}",
        "eastron-sdm120": f"rtu://{place.path('ttySDM120')}?baudrate=9600&parity=N&stopbits=1",
    }
    return urls[profile]


def _write_agent_config(place: Place, owner: str, gateway_id: str, mint: str) -> None:
    cloud_key = Keypair.from_json(place.path("secrets/cloud.json").read_text()).pubkey()
    password_of(place, gateway_id)
    folder = place.folder / f"agent-{owner}"
    lines = [
        "# Written anew by each `make demo`; ports are free ones.",
        "[gateway]",
        f'key_file = "{folder / "gateway.key"}"',
        f'token = "{mint}"',
        "",
        "[cloud]",
        f'public_key = "{cloud_key}"',
        "",
        "[mqtt]",
        f'url = "mqtt://127.0.0.1:{place.ports["mqtt"]}"',
        f'username = "{gateway_id}"',
        f'password_file = "{password_file(place, gateway_id)}"',
        "",
        "[buffer]",
        f'path = "{folder / "buffer.db"}"',
        "max_mb = 64",
        # The demo kills its broker now and then and has no quarter of an hour to wait.
        "resend_after_s = 10",
        "group_s = 1",
    ]
    for meter in METERS:
        if meter.owner == owner:
            lines += [
                "",
                "[[bus]]",
                f'url = "{bus_url(place, meter.profile)}"',
                "[[bus.meter]]",
                f'meter_id = "{meter.meter_id}"',
                f'profile = "{meter.profile}"',
                f"device_id = {meter.device_id}",
                f"interval_s = {SLOT_S}",
                "sample_s = 1",
                f"rated_power_w = {RATED_POWER_W}",
            ]
    agent_config(place, owner).write_text("\n".join(lines) + "\n")


def _keypair_file(path: Path) -> str:
    """Make a key file in the form the Solana tools use, once; return its public key."""
    if not path.exists():
        write_private(path, Keypair().to_json())
    return str(Keypair.from_json(path.read_text()).pubkey())
