// What a page does whose user has a token of the login service: it asks for credentials, calls, and sees calls end.
'use strict';

class Visitor {
  // Asks the token service, as any page would. That the browser forbids it is an answer, too.
  async login({ service, token }) {
    let answer;
    try {
      answer = await fetch(`${service}/v1/relay/credentials`, {
        method: 'POST',
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        body: '{}',
      });
    } catch (error) {
      return { blocked: String(error) };
    }
    const body = await answer.json();
    if (answer.ok) this.server = body.iceServers.find(({ credential }) => credential);
    return { status: answer.status, body };
  }

  // One end of a call calls the other, with the credentials that were got last.
  async call() {
    const [caller, callee] = this.ends = [new Peer(this.server), new Peer(this.server)];
    const offer = await caller.offer({ video: true });
    const answer = await callee.answer({ video: true, description: offer.description });
    await caller.accept({ description: answer.description });
    return { offer, answer };
  }

  // Tries to get a candidate, and no more.
  async gather() {
    return new Peer(this.server).offer({});
  }

  async watch({ frames }) {
    return { ends: await Promise.all(this.ends.map((end) => end.watch({ frames }))) };
  }

  // Waits until both ends know that nothing comes any more, and tells how long that took since the last packet.
  async ended() {
    const states = ['disconnected', 'failed', 'closed'];
    await within(40000, 'the end of the call', () => this.ends.every(({ pc }) => states.includes(pc.iceConnectionState)));
    const now = Date.now();
    const last = await Promise.all(this.ends.map(async ({ pc }) => {
      const reports = [...(await pc.getStats()).values()].filter(({ type }) => type === 'inbound-rtp');
      return Math.max(...reports.map((report) => report.lastPacketReceivedTimestamp));
    }));
    return { silent: last.map((moment) => Math.round(now - moment)), ...await this.stats() };
  }

  async stats() {
    return { ends: await Promise.all(this.ends.map((end) => end.stats())) };
  }
}
