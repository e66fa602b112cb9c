// Shows the stream of events. What is stored is text here, whatever it looks like.
const SHOWN = 200;
// Of a longer value comes its length: nobody reads it in a cell of a table.
const LONGEST = 4096;

const at = (id) => document.getElementById(id);
at("curl").textContent = `curl -X PUT --data-binary 'hello' '${location.origin}/v1/entry?group=greetings&key=world'`;
at("source").textContent =
  "const source = new EventSource('/v1/watch');\n" +
  "source.onmessage = (message) => console.log(message.lastEventId, JSON.parse(message.data));";

function shown(event) {
  if (event.value_bytes !== undefined) return `${event.value_bytes} bytes`;
  return event.value ?? (event.value_base64 ? `base64: ${event.value_base64}` : "");
}

function row(event) {
  const line = document.createElement("tr");
  for (const text of [event.cursor, event.kind, event.group, event.key ?? "", shown(event)]) {
    const cell = document.createElement("td");
    cell.textContent = text;
    line.append(cell);
  }
  return line;
}

function show(query) {
  const source = new EventSource(`v1/watch?${query}`);
  source.onmessage = (message) => {
    const events = at("events");
    events.prepend(row(JSON.parse(message.data)));
    while (events.children.length > SHOWN) events.lastElementChild.remove();
  };
  source.addEventListener("reset", () => at("events").replaceChildren());
  source.addEventListener("ready", (mark) => { at("state").textContent = `live, at ${mark.lastEventId}`; });
  source.addEventListener("bye", () => { at("state").textContent = "the server ends; this page comes back by itself"; });
  source.onerror = () => {
    // It is refused for good: the store asks who comes.
    const refused = source.readyState === EventSource.CLOSED;
    at("state").textContent = refused ? "a token is needed" : "connecting again";
    at("who").hidden = !refused;
  };
}

// The token makes a ticket, and is forgotten.
at("who").addEventListener("submit", async (submit) => {
  submit.preventDefault();
  const token = at("token").value.trim();
  at("token").value = "";
  const answer = await fetch("v1/tickets", {
    method: "POST",
    headers: { "Authorization": `Bearer ${token}`, "Content-Type": "application/json" },
    body: JSON.stringify({ snapshot: "auto", values: String(LONGEST) }),
  });
  const said = await answer.json();
  if (!answer.ok) { at("state").textContent = said.detail; return; }
  at("who").hidden = true;
  show(new URLSearchParams({ ticket: said.ticket }));
});

show(new URLSearchParams({ snapshot: "auto", values: LONGEST }));
