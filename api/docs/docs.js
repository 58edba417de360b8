// Renders /openapi.json. Everything from the description becomes text nodes, never markup.
"use strict";

// el makes an element; children are elements or text.
function el(tag, attrs, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attrs || {})) e.setAttribute(k, v);
  for (const c of children) if (c !== null && c !== undefined) e.append(c);
  return e;
}

const refName = (ref) => ref.split("/").pop();

// typeOf says a schema's type in a few words, with links to named schemas.
function typeOf(s) {
  const out = el("span");
  if (!s || s === true) { out.append("anything"); return out; }
  if (s.$ref) { out.append(el("a", { href: "#schema-" + refName(s.$ref) }, refName(s.$ref))); return out; }
  const several = s.oneOf || s.anyOf || s.allOf;
  if (several) {
    several.forEach((x, i) => { if (i) out.append(" or "); out.append(typeOf(x)); });
    return out;
  }
  const type = [].concat(s.type || "anything").filter((t) => t !== "null").join(" or ");
  if (type === "array") { out.append("list of ", typeOf(s.items)); return out; }
  if (type === "object" && s.additionalProperties && typeof s.additionalProperties === "object") {
    out.append("map of ", typeOf(s.additionalProperties));
    return out;
  }
  out.append(type);
  if (s.enum) out.append(": " + s.enum.join(" | "));
  if (s.minimum !== undefined && s.maximum !== undefined) out.append(" " + s.minimum + "–" + s.maximum);
  return out;
}

function row(name, required, schema, text) {
  const limits = schema && schema.default !== undefined ? "Default " + JSON.stringify(schema.default) + ". " : "";
  return el("tr", {}, el("td", required ? { class: "required" } : {}, name), el("td", {}, typeOf(schema)), el("td", {}, limits + (text || "")));
}

function table(rows, heads) {
  return el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((h) => el("th", { scope: "col" }, h)))), el("tbody", {}, ...rows));
}

function properties(s) {
  const required = new Set(s.required || []);
  const rows = Object.entries(s.properties || {}).map(([k, p]) => row(k, required.has(k), p, p.description));
  return table(rows, ["Field", "Type", "Meaning"]);
}

function example(value) {
  return el("pre", {}, typeof value === "string" ? value : JSON.stringify(value, null, 2));
}

function content(map) {
  const out = el("div");
  let shown = false;
  for (const [type, media] of Object.entries(map || {})) {
    const line = el("p", {}, el("code", {}, type), " ");
    const inline = media.schema && media.schema.properties && !media.schema.$ref;
    if (!inline) line.append(typeOf(media.schema));
    out.append(line);
    if (inline && !shown) out.append(properties(media.schema));
    if (media.example !== undefined && !(shown && typeof media.example !== "string")) out.append(example(media.example));
    shown = true;
  }
  return out;
}

function operation(path, method, op) {
  const box = el("section", { class: "op", id: op.operationId },
    el("h3", {}, el("span", { class: "method " + method }, method.toUpperCase()), path), el("p", {}, el("strong", {}, op.summary || "")));
  if (op.description) box.append(el("p", {}, op.description));
  if (op.parameters && op.parameters.length) {
    box.append(el("h3", {}, "Parameters"), table(op.parameters.map((p) => row(p.name + " (" + p.in + ")", p.required, p.schema, p.description)), ["Name", "Type", "Meaning"]));
  }
  if (op.requestBody) box.append(el("h3", {}, "Body"), content(op.requestBody.content));
  box.append(el("h3", {}, "Answers"));
  const rows = Object.entries(op.responses || {}).sort().map(([code, r]) => {
    const types = el("span");
    Object.entries(r.content || {}).forEach(([type, m], i) => { if (i) types.append(", "); types.append(type + " ", typeOf(m.schema)); });
    return el("tr", {}, el("td", {}, code), el("td", {}, types), el("td", {}, r.description || ""));
  });
  box.append(table(rows, ["Status", "Body", "Meaning"]));
  const good = (op.responses || {})["200"];
  const shown = good && good.content && good.content["application/json"];
  if (shown && shown.example !== undefined) box.append(el("h3", {}, "Example of an answer"), example(shown.example));
  return box;
}

function render(doc) {
  document.getElementById("version").textContent = doc.info.version;
  document.getElementById("about").textContent = doc.info.description || "";
  const nav = document.getElementById("nav"), main = document.getElementById("main");
  for (const tag of doc.tags || []) {
    nav.append(el("h2", {}, tag.name));
    main.append(el("h2", { id: "tag-" + tag.name }, tag.name + (tag.description ? " — " + tag.description : "")));
    for (const [path, item] of Object.entries(doc.paths)) {
      for (const method of ["get", "put", "post", "patch", "delete"]) {
        const op = item[method];
        if (!op || !(op.tags || []).includes(tag.name)) continue;
        nav.append(el("a", { href: "#" + op.operationId }, op.summary || path));
        main.append(operation(path, method, op));
      }
    }
  }
  nav.append(el("h2", {}, "schemas"));
  main.append(el("h2", {}, "Schemas"));
  for (const [name, s] of Object.entries(doc.components.schemas).sort()) {
    nav.append(el("a", { href: "#schema-" + name }, name));
    main.append(el("section", { class: "op", id: "schema-" + name }, el("h3", {}, name), el("p", {}, s.description || ""), properties(s)));
  }
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

fetch("/openapi.json")
  .then((r) => { if (!r.ok) throw new Error("/openapi.json: " + r.status); return r.json(); })
  .then(render)
  .catch((err) => { document.getElementById("about").textContent = "The description cannot be shown: " + err.message; });
