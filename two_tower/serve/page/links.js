// Where passages are to be read. Nothing but http and files that the service offers: another link may run a script.

const FIELDS = ["url", "link", "source"];
const ADDRESS = /^(https?|file):\/\/\S+$/i;

// From an address, perhaps relative to a base, to one that a browser opens from here; null where there is none.
// `folders` are the beginnings of the file: addresses that the service offers.
export function opener(folders) {
  const paths = folders.map((folder) => decodeURIComponent(new URL(folder).pathname));
  return (address, base) => {
    try {
      const url = new URL(address, base);
      if (/^https?:$/.test(url.protocol)) return base ? url.href : address;
      if (url.protocol !== "file:" || url.host) return null;
      const path = decodeURIComponent(url.pathname);
      const folder = paths.find((each) => path.startsWith(each));
      if (folder === undefined) return null;
      return `files/${path.slice(folder.length).split("/").map(encodeURIComponent).join("/")}${url.hash}`;
    } catch {
      return null;
    }
  };
}

// A browser finds no anchor in plain text; it finds the words of the heading.
export function atHeading(address, title) {
  const words = title.split(" › ").at(-1);
  if (!words || !/^files\/[^#]*\.(md|markdown|rst)#/i.test(address ?? "")) return address;
  return `${address}:~:text=${encodeURIComponent(words).replaceAll("-", "%2D")}`;
}

// The field that says where a passage is to be read: its name and value.
export function sourceOf(fields) {
  const names = Object.keys(fields);
  const found = FIELDS.map((name) => names.find((key) => key.toLowerCase() === name && ADDRESS.test(fields[key])));
  const field = found.find((each) => each !== undefined);
  return field === undefined ? null : { field, address: fields[field] };
}

// What passages of one page have in common; null of a passage whose page is not known.
export function pageOf(fields) {
  const source = sourceOf(fields);
  if (source) return source.address.replace(/#.*$/s, "");
  return typeof fields.document === "string" && fields.document ? fields.document : null;
}

// The source in words: "example.org › guide › install.md", "manual.pdf › page 3".
export function placeOf(fields, open) {
  const source = sourceOf(fields);
  const address = source && open(source.address);
  if (!address) return typeof fields.document === "string" ? fields.document : "";
  try {
    const url = new URL(address, location.href);
    const own = address.startsWith("files/");
    const steps = decodeURIComponent(url.pathname).split("/").filter(Boolean);
    const page = /^#page=(\d+)/.exec(url.hash);
    if (own) steps.shift();
    return [...(own ? [] : [url.host]), ...steps, ...(page ? [`page ${page[1]}`] : [])].join(" › ");
  } catch {
    return address;
  }
}
