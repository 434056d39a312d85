// The HTTP API of this origin.

export class ApiError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function call(method, path, body) {
  const options = { method, credentials: "same-origin", cache: "no-store", headers: {} };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(`/api/v1/${path}`, options);
  } catch {
    throw new ApiError(0, "The server cannot be reached. Check the connection and try again.");
  }
  if (answer.status === 204) return null;
  const value = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new ApiError(answer.status, value.detail ?? "The server gave no reason.");
  return value;
}

export const me = () => call("GET", "me");
export const signIn = (token) => call("POST", "auth/session", { token });
export const signOut = () => call("DELETE", "auth/session");
export const ticket = () => call("POST", "ws-tickets");
export const meters = () => call("GET", "meters");
export const summary = () => call("GET", "summary");
export const mints = () => call("GET", "mints?limit=20");
export const power = (meterId, minutes) =>
  call("GET", `meters/${encodeURIComponent(meterId)}/power?minutes=${minutes}`);
