"use strict";

// What openapi.json says, as a page: the usual viewers load their parts from other sites.
const make = (tag, text = "", ...children) => {
  const element = document.createElement(tag);
  element.textContent = text;
  element.append(...children);
  return element;
};

const named = (schema, all) => (schema?.$ref ? all[schema.$ref.split("/").pop()] : schema ?? {});

function kind(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(kind).join(" or ");
  if (schema.type === "array") return `list of ${schema.items ? kind(schema.items) : schema.prefixItems.map(kind).join(", ")}`;
  if (schema.enum) return schema.enum.join(" or ");
  return schema.type ?? "";
}

function limits(schema) {
  const told = [];
  if (schema.minimum !== undefined) told.push(`at least ${schema.minimum}`);
  if (schema.maximum !== undefined) told.push(`at most ${schema.maximum}`);
  if (schema.maxLength !== undefined) told.push(`at most ${schema.maxLength} characters`);
  if (schema.default !== undefined && schema.default !== null) told.push(`default ${schema.default}`);
  return told.join(", ");
}

function table(rows) {
  const lines = rows.map(([name, schema, required, description]) =>
    make("tr", "", make("td", "", make("code", name)), make("td", kind(schema)), make("td", [required ? "required" : "", limits(schema)].filter(Boolean).join(", ")), make("td", description ?? "")));
  return make("table", "", ...lines);
}

const fields = (schema) => Object.entries(schema.properties ?? {}).map(([name, field]) => [name, field, schema.required?.includes(name), field.description]);

function operation(path, method, what, all) {
  const parts = [make("h2", `${method.toUpperCase()} ${path}`), make("p", what.summary ?? "")];
  if (what.parameters) parts.push(table(what.parameters.map((p) => [p.name, p.schema, p.required, p.description ?? p.schema.description])));
  const body = what.requestBody?.content["application/json"]?.schema;
  if (body) parts.push(table(fields(named(body, all))));
  const answers = Object.entries(what.responses).map(([status, response]) => {
    const schema = response.content?.["application/json"]?.schema;
    return make("li", `${status}: ${response.description}${schema?.$ref ? ` (${kind(schema)})` : ""}`);
  });
  parts.push(make("ul", "", ...answers));
  return parts;
}

async function begin() {
  document.getElementById("example").textContent = `curl '${location.origin}/search?q=a+question&k=3'
curl '${location.origin}/search' -H 'content-type: application/json' -d '{"query": "a question", "k": 3}'`;
  const api = await (await fetch("openapi.json")).json();
  const all = api.components?.schemas ?? {};
  const place = document.getElementById("paths");
  for (const [path, methods] of Object.entries(api.paths))
    for (const [method, what] of Object.entries(methods)) place.append(...operation(path, method, what, all));
  for (const [name, schema] of Object.entries(all)) {
    if (/ValidationError/.test(name)) continue;
    place.append(make("h2", name), make("p", schema.description ?? ""), table(fields(schema)));
  }
}

begin();
