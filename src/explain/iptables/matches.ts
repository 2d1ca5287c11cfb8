/** Whether a packet matches: yes, no, by chance, or nobody can tell. */
import type { Protocol } from '../../api/objects.ts';
import { canonicalIP, cidrContains, parseCIDR } from '../../services/ip.ts';
import type { Flow, Surroundings } from '../flow.ts';
import { startsHere } from '../packet.ts';
import { addressType } from '../world.ts';
import { inSet } from './ipset.ts';
import type { Match, Option } from './parse.ts';

export type Truth =
  | boolean
  | { readonly chance: number }
  /** `usual` = the answer that holds for ordinary packets, if there is one. */
  | { readonly question: string; readonly usual?: boolean; readonly affinity?: true };

/** The ports that Linux hands out by default (net.ipv4.ip_local_port_range). */
const ephemeral = { first: 32768, last: 60999 };

type Test = (option: Option, flow: Flow, at: Surroundings) => Truth;

function word(option: Option): string {
  return option.values[0] ?? '';
}

function question(text: string): Truth {
  return { question: text };
}

export function negate(truth: Truth, not: boolean): Truth {
  if (!not) return truth;
  if (typeof truth === 'boolean') return !truth;
  if ('chance' in truth) return { chance: 1 - truth.chance };
  return {
    ...truth,
    question: `not (${truth.question})`,
    ...(truth.usual === undefined ? {} : { usual: !truth.usual }),
  };
}

/** Several at once: one `no` settles it. */
export function every(truths: Iterable<Truth>): Truth {
  let chance = 1;
  let open: Question | undefined;
  for (const truth of truths) {
    if (truth === false) return false;
    if (truth === true) continue;
    if ('chance' in truth) chance *= truth.chance;
    else if (open === undefined) open = truth;
    else open = both(open, truth);
  }
  if (open !== undefined) return open;
  return chance === 1 ? true : { chance };
}

type Question = Extract<Truth, { question: string }>;

function both(a: Question, b: Question): Question {
  const question = `${a.question} and ${b.question}`;
  if (a.usual === false || b.usual === false) return { question, usual: false };
  return a.usual === true && b.usual === true ? { question, usual: true } : { question };
}

function address(option: Option, ip: string): Truth {
  const found = option.values
    .flatMap((value) => value.split(','))
    .some((text) => {
      const cidr = text.includes('/') ? parseCIDR(text) : undefined;
      return cidr === undefined ? canonicalIP(text) === ip : cidrContains(cidr, ip);
    });
  return negate(found, option.not);
}

function interfaceName(option: Option, name: string | undefined, which: string): Truth {
  const wanted = word(option);
  if (wanted === '+') return !option.not;
  if (name === undefined) return negate(question(`it ${which} by interface ${wanted}`), option.not);
  const found = wanted.endsWith('+') ? name.startsWith(wanted.slice(0, -1)) : name === wanted;
  return negate(found, option.not);
}

const protocols: Readonly<Record<string, Protocol | 'other'>> = {
  tcp: 'TCP',
  '6': 'TCP',
  udp: 'UDP',
  '17': 'UDP',
  sctp: 'SCTP',
  '132': 'SCTP',
};

function protocol(option: Option, packet: Protocol): Truth {
  const wanted = word(option).toLowerCase();
  if (wanted === 'all' || wanted === '0') return !option.not;
  return negate(protocols[wanted] === packet, option.not);
}

function portIn(text: string, port: number): boolean {
  const [first = '', last = first] = text.split(/[:-]/);
  return port >= Number(first === '' ? 0 : first) && port <= Number(last === '' ? 65535 : last);
}

function ports(text: string, port: number | undefined): Truth {
  const parts = text.split(',');
  if (port !== undefined) return parts.some((part) => portIn(part, port));
  if (parts.some((part) => portIn(part, ephemeral.first) && portIn(part, ephemeral.last))) return true;
  const touched = parts.some((part) => {
    const [first = '', last = first] = part.split(/[:-]/);
    return Number(last) >= ephemeral.first && Number(first) <= ephemeral.last;
  });
  return touched ? question(`its source port is one of ${text}`) : false;
}

function masked(option: Option, value: number): boolean {
  const [wanted = '0', mask = '0xffffffff'] = word(option).split('/');
  return (value & Number(mask)) >>> 0 === Number(wanted);
}

const ignored = (): Truth => true;
const unknown: Test = (option) =>
  negate(question(`${[option.name, ...option.values].join(' ')} matches`), option.not);

/** The first packet of a connection. */
function conntrackState(option: Option, flow: Flow): Truth {
  const states = word(option).split(',');
  const found = flow.untracked
    ? states.includes('UNTRACKED')
    : states.includes('NEW') ||
      (states.includes('DNAT') && flow.dnat !== undefined) ||
      (states.includes('SNAT') && flow.snat !== undefined);
  return negate(found, option.not);
}

const portTests: Readonly<Record<string, Test>> = {
  '--dport': (option, flow) => negate(ports(word(option), flow.destinationPort), option.not),
  '--dports': (option, flow) => negate(ports(word(option), flow.destinationPort), option.not),
  '--sport': (option, flow) => negate(ports(word(option), flow.sourcePort), option.not),
  '--sports': (option, flow) => negate(ports(word(option), flow.sourcePort), option.not),
  '--ports': (option, flow) => {
    const here = ports(word(option), flow.destinationPort);
    return negate(here === true ? true : ports(word(option), flow.sourcePort), option.not);
  },
  // A connection begins with SYN alone.
  '--syn': (option) => !option.not,
  '--tcp-flags': (option) => {
    const [looked = '', set = ''] = option.values;
    const seen = looked === 'ALL' || looked.split(',').includes('SYN') ? 'SYN' : 'NONE';
    return negate(set === seen, option.not);
  },
};
for (const [short, long] of [
  ['--destination-port', '--dport'],
  ['--source-port', '--sport'],
  ['--destination-ports', '--dports'],
  ['--source-ports', '--sports'],
] as const) {
  (portTests as Record<string, Test>)[short] = portTests[long]!;
}

function range(option: Option, ip: string): Truth {
  const [first = '', last = first] = word(option).split('-');
  const number = (text: string): bigint | undefined => {
    const bytes =
      canonicalIP(text) === undefined
        ? undefined
        : parseCIDR(`${text}/${text.includes(':') ? 128 : 32}`)?.bytes;
    return bytes === undefined ? undefined : BigInt(`0x${Buffer.from(bytes).toString('hex')}`);
  };
  const [a, b, c] = [number(first), number(last), number(ip)];
  if (a === undefined || b === undefined || c === undefined) return unknownAddress(option);
  return negate(a <= c && c <= b, option.not);
}

function unknownAddress(option: Option): Truth {
  return question(`${[option.name, ...option.values].join(' ')} matches`);
}

const modules: Readonly<Record<string, Readonly<Record<string, Test>> | 'always'>> = {
  '': {
    '-s': (option, flow) => address(option, flow.source),
    '-d': (option, flow) => address(option, flow.destination),
    '-p': (option, _flow, { packet }) => protocol(option, packet.protocol),
    // A packet that starts here has come in by none: the kernel compares with an empty name.
    '-i': (option, flow, { packet }) =>
      interfaceName(option, flow.inInterface ?? (startsHere(packet.origin) ? '' : undefined), 'comes in'),
    '-o': (option, flow) => interfaceName(option, flow.outInterface, 'leaves'),
    '-f': (option) => option.not,
  },
  tcp: portTests,
  udp: portTests,
  sctp: { ...portTests, '--chunk-types': unknown },
  multiport: portTests,
  nfacct: 'always',
  mark: { '--mark': (option, flow) => negate(masked(option, flow.mark), option.not) },
  connmark: { '--mark': (option, flow) => negate(masked(option, flow.connectionMark), option.not) },
  state: { '--state': conntrackState },
  conntrack: {
    '--ctstate': conntrackState,
    '--ctproto': (option, _flow, { packet }) => protocol(option, packet.protocol),
    '--ctorigsrc': (option, _flow, { packet }) => address(option, packet.origin.address),
    '--ctorigdst': (option, _flow, { packet }) => address(option, packet.destination),
    '--ctorigdstport': (option, _flow, { packet }) =>
      negate(ports(word(option), packet.destinationPort), option.not),
    '--ctorigsrcport': (option, _flow, { packet }) =>
      negate(ports(word(option), packet.sourcePort), option.not),
    '--ctdir': (option) => negate(word(option) === 'ORIGINAL', option.not),
    '--ctstatus': (option) => negate(word(option) === 'NONE', option.not),
  },
  addrtype: {
    '--src-type': (option, flow, { world }) =>
      negate(word(option).split(',').includes(addressType(world, flow.source)), option.not),
    '--dst-type': (option, flow, { world }) =>
      negate(word(option).split(',').includes(addressType(world, flow.destination)), option.not),
    '--limit-iface-in': ignored,
    '--limit-iface-out': ignored,
  },
  set: {
    '--match-set': (option, flow, { world, packet }) => {
      const [name = '', directions = ''] = option.values;
      const set = world.ipsets.get(name);
      if (set === undefined) return negate(question(`ipset ${name} has it (${directions})`), option.not);
      const found = inSet(set, directions.split(','), flow, packet.protocol);
      return negate(found ?? question(`ipset ${name} (${set.type}) has it`), option.not);
    },
    '--return-nomatch': ignored,
    '--update-counters': ignored,
    '--update-subcounters': ignored,
  },
  iprange: {
    '--src-range': (option, flow) => range(option, flow.source),
    '--dst-range': (option, flow) => range(option, flow.destination),
  },
  pkttype: { '--pkt-type': (option) => negate(word(option) === 'unicast', option.not) },
  limit: {
    '--limit': (option) => ({ question: `no more than ${word(option)} such packets came`, usual: true }),
    '--limit-burst': ignored,
  },
  physdev: {
    '--physdev-is-bridged': (option) =>
      negate({ question: 'it crosses a bridge of this node', usual: false }, option.not),
    // Set where br_netfilter hands bridged packets to these rules; routed ones have come in by no bridge port.
    '--physdev-is-in': (option) => option.not,
  },
  ipvs: {
    '--ipvs': (option, flow) => negate(flow.virtualServer !== undefined, option.not),
    '--vaddr': (option, flow) =>
      flow.virtualServer === undefined ? false : address(option, flow.virtualServer.address),
    '--vport': (option, flow) =>
      flow.virtualServer === undefined
        ? false
        : negate(ports(word(option), flow.virtualServer.port), option.not),
    '--vproto': (option, flow, { packet }) =>
      flow.virtualServer === undefined ? false : protocol(option, packet.protocol),
  },
  rpfilter: {
    '--invert': ignored,
    '--loose': ignored,
    '--validmark': ignored,
    '--accept-local': ignored,
  },
  policy: {
    '--pol': (option) => negate(word(option) === 'none', option.not),
    '--dir': ignored,
  },
  socket: {
    '--transparent': ignored,
    '--nowildcard': ignored,
    '--restore-skmark': ignored,
  },
};

/** True, false, a chance or a question for one module's part of a rule. */
export function testMatch(match: Match, flow: Flow, at: Surroundings): Truth {
  switch (match.module) {
    case 'statistic':
      return statistic(match);
    case 'recent':
      return recent(match, flow, at);
    case 'rpfilter': {
      const inverted = match.options.some(({ name }) => name === '--invert');
      return {
        question: 'its sender would be answered the way it came',
        usual: !inverted,
        ...(inverted ? { question: 'its sender would be answered another way (reverse path filter)' } : {}),
      };
    }
    case 'socket':
      // Nobody has a connection yet that the first packet could belong to.
      return false;
    case 'owner':
      return startsHere(at.packet.origin)
        ? question(`the program that sends it has ${match.options.map(text).join(' ')}`)
        : false;
    default:
  }
  const tests = modules[match.module];
  if (tests === 'always') return true;
  if (tests === undefined) {
    if (match.module === 'icmp' || match.module === 'icmp6' || match.module === 'ipv6-icmp') return false;
    return question(`${['-m', match.module, ...match.options.map(text)].join(' ')} matches`);
  }
  const implied = protocols[match.module];
  if (implied !== undefined && implied !== at.packet.protocol) return false;
  return every(match.options.map((option) => (tests[option.name] ?? unknown)(option, flow, at)));
}

function text(option: Option): string {
  return `${option.not ? '! ' : ''}${[option.name, ...option.values].join(' ')}`;
}

/** xt_statistic keeps probabilities in 31 bits. */
function statistic({ options }: Match): Truth {
  const value = (name: string): Option | undefined => options.find((one) => one.name === name);
  const probability = value('--probability');
  if (probability !== undefined) return negate({ chance: snap(Number(word(probability))) }, probability.not);
  const nth = value('--every');
  return nth === undefined
    ? question('-m statistic matches')
    : negate({ chance: 1 / Number(word(nth)) }, nth.not);
}

/** The fraction that ten decimals mean: 0.3333333333 is one third. */
function snap(probability: number): number {
  const count = Math.round(1 / probability);
  return Math.abs(1 / count - probability) < 1e-8 ? 1 / count : probability;
}

function recent({ options }: Match, flow: Flow, { world }: Surroundings): Truth {
  const value = (name: string): Option | undefined => options.find((one) => one.name === name);
  const set = value('--set');
  if (set !== undefined) return !set.not;
  const check = value('--rcheck') ?? value('--update');
  if (check === undefined) return question('-m recent matches');
  const list = word(value('--name') ?? { name: '', values: ['DEFAULT'], not: false });
  if (world.recent !== undefined) {
    return negate(world.recent.get(list)?.has(flow.source) === true, check.not);
  }
  const seconds = value('--seconds');
  const within = seconds === undefined ? '' : ` within the last ${word(seconds)} s`;
  return negate(
    { question: `this client is in list ${list}${within}`, usual: false, affinity: true },
    check.not,
  );
}
