/**
 * `/debug/pprof/…` of a Node.js program: CPU profiles and heap snapshots for Chrome's developer tools, where kube-proxy
 * has Go's formats. Served only if profiling is enabled.
 */
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Session } from 'node:inspector/promises';
import { getHeapSnapshot } from 'node:v8';
import { notFound, queryOf, send, textPlain } from './httpReply.ts';

const index = `/debug/pprof/

profile?seconds=30   CPU profile (.cpuprofile)
heap                 heap snapshot (.heapsnapshot)
`;

export const profilingPath = '/debug/pprof/';

/** Answers a request below `profilingPath`. */
export async function serveProfile(
  path: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  switch (path.slice(profilingPath.length)) {
    case '':
      return send(response, 200, textPlain, index);
    case 'profile': {
      const seconds = Number(queryOf(request).get('seconds') ?? '30');
      if (!(seconds > 0 && seconds <= 300))
        return send(response, 400, textPlain, 'seconds must be within (0, 300]\n');
      const profile = await cpuProfile(seconds * 1000);
      response.setHeader('Content-Disposition', 'attachment; filename="profile.cpuprofile"');
      return send(response, 200, 'application/json', profile);
    }
    case 'heap': {
      response.setHeader('Content-Type', 'application/json');
      response.setHeader('Content-Disposition', 'attachment; filename="heap.heapsnapshot"');
      const snapshot = getHeapSnapshot();
      snapshot.pipe(response);
      await once(snapshot, 'end');
      return;
    }
    default:
      return notFound(response);
  }
}

async function cpuProfile(milliseconds: number): Promise<string> {
  const session = new Session();
  session.connect();
  try {
    await session.post('Profiler.enable');
    await session.post('Profiler.start');
    await new Promise((resolve) => setTimeout(resolve, milliseconds));
    const { profile } = await session.post('Profiler.stop');
    return JSON.stringify(profile);
  } finally {
    session.disconnect();
  }
}
