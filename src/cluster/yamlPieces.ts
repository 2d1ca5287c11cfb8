/**
 * YAML in pieces: a parser that reads a long stream at once keeps all of it as a tree, which costs several times the
 * time and memory of reading one document after another, or one item of a List after another.
 */

export interface YamlPiece {
  readonly text: string;
  /** Where it begins in the whole text. */
  readonly at: number;
}

export interface ListPieces {
  /** The document without its items. */
  readonly frame: string;
  /** Each stands in its text where it stood before: the dash is a blank. */
  readonly items: readonly YamlPiece[];
}

/** The documents of a stream; all in one piece where directives or text behind markers have a say. */
export function yamlDocuments(text: string): YamlPiece[] {
  if (/^(?:%|\.\.\.|---[ \t]*[^ \t\r\n#])/m.test(text)) return [{ text, at: 0 }];
  const pieces: YamlPiece[] = [];
  let at = 0;
  for (const marker of text.matchAll(/^---(?:[ \t]+(?:#.*)?)?\r?$/gm)) {
    pieces.push({ text: text.slice(at, marker.index), at });
    at = marker.index + marker[0].length;
  }
  pieces.push({ text: text.slice(at), at });
  return pieces;
}

/**
 * A document that has `items:` with a block sequence at its top, as kubectl prints Lists. Undefined: it has another
 * form. Lines of an item are indented deeper than its dash, so a dash there always begins another item.
 */
export function listPieces({ text, at }: YamlPiece): ListPieces | undefined {
  const heads = [...text.matchAll(/^items:[ \t]*\r?\n(?=( *)- \S)/gm)];
  const [head] = heads;
  if (head === undefined || /^["']?items["']?[ \t]*:/gm.exec(text.slice(head.index + 6)) !== null)
    return undefined;
  const indent = head[1]!.length;
  const begin = head.index + head[0].length;
  const dash = `${' '.repeat(indent)}- `;
  const starts: number[] = [];
  let end = begin;
  while (end < text.length) {
    const next = text.indexOf('\n', end) + 1 || text.length;
    if (text.startsWith(dash, end)) starts.push(end);
    else {
      const first = end + text.slice(end, next).search(/[^ ]/);
      const isBlank = first < end || text[first] === '\n' || text[first] === '\r';
      if (!isBlank && text[first] !== '#' && first - end <= indent) break;
    }
    end = next;
  }
  const items = starts.map((start, i) => {
    const own = text.slice(start, starts[i + 1] ?? end);
    return { text: `${' '.repeat(indent + 1)}${own.slice(indent + 1)}`, at: at + start };
  });
  return { frame: `${text.slice(0, head.index)}items: []\n${text.slice(end)}`, items };
}
