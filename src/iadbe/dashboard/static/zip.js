// Creates a zip archive without compression: images are compressed already.

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});

function crc(data) {
  let found = 0xffffffff;
  for (const byte of data) found = TABLE[(found ^ byte) & 255] ^ (found >>> 8);
  return (found ^ 0xffffffff) >>> 0;
}

function record(fields) {
  const size = fields.reduce((sum, [bytes]) => sum + bytes, 0), view = new DataView(new ArrayBuffer(size));
  let at = 0;
  for (const [bytes, value] of fields) {
    if (bytes === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += bytes;
  }
  return new Uint8Array(view.buffer);
}

/** Create an archive of files: [{name, data: Uint8Array}], names with forward slashes. */
export function zip(files) {
  const now = new Date();
  const time = (now.getHours() << 11) | (now.getMinutes() << 5) | (now.getSeconds() >> 1);
  const date = ((now.getFullYear() - 1980) << 9) | ((now.getMonth() + 1) << 5) | now.getDate();
  const parts = [], list = [];
  let at = 0;
  for (const { name, data } of files) {
    const named = new TextEncoder().encode(name), size = data.length;
    // version 2.0, names in UTF-8, stored
    const shared = [[2, 20], [2, 0x0800], [2, 0], [2, time], [2, date], [4, crc(data)], [4, size], [4, size], [2, named.length], [2, 0]];
    const head = record([[4, 0x04034b50], ...shared]);
    list.push(record([[4, 0x02014b50], [2, 20], ...shared, [2, 0], [2, 0], [2, 0], [4, 0], [4, at]]), named);
    parts.push(head, named, data);
    at += head.length + named.length + size;
  }
  const listed = list.reduce((sum, part) => sum + part.length, 0);
  const end = record([[4, 0x06054b50], [2, 0], [2, 0], [2, files.length], [2, files.length], [4, listed], [4, at], [2, 0]]);
  return new Blob([...parts, ...list, end], { type: "application/zip" });
}
