// The event stream: one WebSocket, resumed by offset after every interruption.

import * as api from "./api.js";
import { setServerTime } from "./format.js";

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 30_000;
const WATCHDOG_MS = 60_000;
const STABLE_MS = 10_000;

export class EventStream {
  #handlers;
  #socket = null;
  #timer = 0;
  #watchdog = 0;
  #failures = 0;
  #ended = true;
  #streams = new Map(); // name -> {epoch, o}

  // handlers: onState(state, words), onEvent(event), onReset(), onSignedOut()
  constructor(handlers) {
    this.#handlers = handlers;
    addEventListener("online", () => this.#hurry());
    document.addEventListener("visibilitychange", () => document.hidden || this.#hurry());
  }

  start() {
    this.stop();
    this.#ended = false;
    this.#streams.clear();
    this.#failures = 0;
    this.#connect();
  }

  stop() {
    this.#ended = true;
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#drop();
  }

  #drop() {
    clearTimeout(this.#watchdog);
    const socket = this.#socket;
    this.#socket = null;
    if (socket) {
      socket.onclose = socket.onmessage = socket.onopen = null;
      socket.close();
    }
  }

  #hurry() {
    if (this.#timer) {
      clearTimeout(this.#timer);
      this.#connect();
    }
  }

  async #connect() {
    this.#timer = 0;
    let pass;
    try {
      pass = await api.ticket();
    } catch (fault) {
      if (this.#ended) return;
      if (fault.status === 401) this.#signedOut();
      else this.#retry();
      return;
    }
    if (this.#ended) return;
    const socket = new WebSocket(pass.url, ["gridtokenx.v1"]);
    this.#socket = socket;
    this.#feedWatchdog();
    socket.onopen = () => {
      const streams = [...this.#streams].map(([s, { epoch, o }]) => ({ s, epoch, o }));
      socket.send(JSON.stringify({ op: "connect", ticket: pass.ticket, streams }));
    };
    socket.onmessage = (message) => this.#receive(JSON.parse(message.data));
    socket.onclose = (event) => this.#closed(event.code);
  }

  #receive(message) {
    this.#feedWatchdog();
    if (message.op === "welcome") this.#welcome(message);
    else if (message.op === "ev") this.#event(message);
    else if (message.op === "hb") {
      for (const [name, o] of Object.entries(message.o ?? {})) {
        const stream = this.#streams.get(name);
        if (stream) stream.o = o;
      }
    }
  }

  #welcome(message) {
    let whole = true;
    setServerTime(message.server_time);
    for (const { s, epoch, o, recovered } of message.streams) {
      if (recovered === true) continue;
      if (recovered === false) whole = false;
      this.#streams.set(s, { epoch, o });
    }
    setTimeout(() => this.#socket && (this.#failures = 0), STABLE_MS);
    this.#handlers.onState("live", "Live");
    if (!whole) this.#handlers.onReset();
  }

  #event(message) {
    const stream = this.#streams.get(message.s);
    if (message.o !== undefined && stream) {
      if (message.p !== stream.o) {
        // Something between is missing: come back and have it replayed.
        this.#drop();
        this.#retry();
        return;
      }
      stream.o = message.o;
    }
    this.#handlers.onEvent(message.ev);
  }

  #feedWatchdog() {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => {
      this.#drop();
      this.#retry();
    }, WATCHDOG_MS);
  }

  #closed(code) {
    clearTimeout(this.#watchdog);
    this.#socket = null;
    if (this.#ended) return;
    if (code === 4009) {
      this.#handlers.onState("off", "Too many open tabs");
    } else if (code === 4003) {
      this.#signedOut();
    } else {
      this.#retry(code === 1012 ? Math.random() * 5000 : undefined);
    }
  }

  #retry(delay) {
    const longest = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#failures);
    this.#failures = Math.min(this.#failures + 1, 10);
    this.#handlers.onState("waiting", navigator.onLine ? "Reconnecting" : "Offline");
    // Spread after the cap: clients that were cut together must not come back together.
    this.#timer = setTimeout(() => this.#connect(), delay ?? longest * (0.5 + Math.random()));
  }

  #signedOut() {
    this.#ended = true;
    this.#handlers.onSignedOut();
  }
}
