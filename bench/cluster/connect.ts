/**
 * Opens TCP connections one after another for a while, with plain blocking system calls, so that the kernel's part
 * shows; or accepts them. As a process of its own inside a Pod's namespace: `connect.ts server IP PORT`, or
 * `connect.ts client`, which answers requests.
 */
import koffi from 'koffi';
import { closeDescriptor, openSocket, setSocketOption } from '../../src/linux/ffi.ts';
import { encodeSocketAddress } from '../../src/lab/net/address.ts';
import { listenOn } from '../../src/lab/net/sockets.ts';
import { answerRequests, now } from './channel.ts';

const libc = koffi.load(null);
const connect = libc.func('int connect(int fd, void *address, uint length)');
const accept = libc.func('int accept(int fd, void *address, void *length)');
const poll = libc.func('int poll(void *fds, ulong count, int timeout)');

const AF_INET = 2;
const SOCK_STREAM = 1;
const SOL_SOCKET = 1;
const SO_LINGER = 13;

const [role, ip = '', port = ''] = process.argv.slice(2);

function serve(): never {
  const listener = listenOn('tcp', { ip, port: Number(port) });
  process.send?.({ id: 0 });
  const wanted = Buffer.alloc(8);
  wanted.writeInt32LE(listener, 0);
  wanted.writeInt16LE(1, 4);
  for (;;) {
    poll(wanted, 1, 1000);
    for (
      let fd = accept(listener, null, null) as number;
      fd >= 0;
      fd = accept(listener, null, null) as number
    ) {
      closeDescriptor(fd);
    }
  }
}

if (role === 'server') serve();

/** Reset instead of FIN: no connection lingers, so that ports do not run out. */
const reset = Buffer.alloc(8);
reset.writeInt32LE(1, 0);

answerRequests({
  /** Connections per second to `ip:port` during `milliseconds`. */
  rate: (request) => {
    const address = encodeSocketAddress({ ip: String(request['ip']), port: Number(request['port']) });
    const begun = now();
    const end = begun + Number(request['milliseconds']);
    let count = 0;
    let failed = 0;
    while (now() < end) {
      for (let i = 0; i < 50; i++) {
        const fd = openSocket(AF_INET, SOCK_STREAM, 0);
        setSocketOption(fd, SOL_SOCKET, SO_LINGER, reset);
        if ((connect(fd, address, address.length) as number) < 0) failed++;
        else count++;
        closeDescriptor(fd);
      }
    }
    return { perSecond: (count * 1000) / (now() - begun), failed };
  },
});
process.send?.({ id: 0 });
