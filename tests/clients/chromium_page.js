// The part of the Chromium peer that runs in the page: one method for each word it understands.
'use strict';

class Peer {
  constructor({ urls, username, credential }) {
    this.pc = new RTCPeerConnection({
      iceServers: [{ urls, username, credential }],
      iceTransportPolicy: 'relay',
    });
    this.candidates = [];
    this.errors = [];
    this.received = 0;
    this.replies = [];
    this.wake = () => {};
    this.pc.onicecandidate = ({ candidate }) => {
      if (candidate && candidate.candidate) this.candidates.push(candidate.candidate);
    };
    this.pc.onicecandidateerror = ({ errorCode, errorText, url }) => {
      console.log(`icecandidateerror ${errorCode} ${errorText} ${url}`);
      this.errors.push({ code: errorCode, text: errorText, url });
    };
    this.pc.oniceconnectionstatechange = () => console.log(`ice ${this.pc.iceConnectionState}`);
    this.pc.ondatachannel = ({ channel }) => {
      channel.binaryType = 'arraybuffer';
      channel.onmessage = ({ data }) => {
        this.received += data.byteLength;
        channel.send(data);
      };
    };
  }

  // Opens a channel and, when video is asked for, the camera.
  async offer({ video }) {
    this.channel = this.pc.createDataChannel('echo');
    this.channel.binaryType = 'arraybuffer';
    this.channel.onmessage = ({ data }) => { this.replies.push(new Uint8Array(data)); this.wake(); };
    if (video) await this.film();
    await this.pc.setLocalDescription();
    return this.gathered();
  }

  async answer({ description, video }) {
    await this.pc.setRemoteDescription(description);
    if (video) await this.film();
    await this.pc.setLocalDescription();
    return this.gathered();
  }

  async accept({ description }) {
    await this.pc.setRemoteDescription(description);
    return {};
  }

  async film() {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { width: 320, height: 240, frameRate: 15 } });
    for (const track of stream.getTracks()) this.pc.addTrack(track, stream);
  }

  // All candidates in the description, as the other kind of peer wants it.
  async gathered() {
    await within(20000, 'gathering', () => this.pc.iceGatheringState === 'complete');
    const { type, sdp } = this.pc.localDescription;
    return { description: { type, sdp }, candidates: this.candidates, errors: this.errors };
  }

  // Sends numbered messages, all at once, and compares each answer with what was sent.
  async echo({ count, size }) {
    await within(20000, 'the data channel', () => this.channel.readyState === 'open');
    const started = performance.now();
    for (let number = 0; number < count; number++) this.channel.send(payload(number, size));
    await within(20000, 'the echoes', () => this.replies.length >= count);
    for (let number = 0; number < count; number++) {
      if (!same(this.replies[number], payload(number, size))) throw new Error(`message ${number} came back changed`);
    }
    return { echoed: this.replies.length, ms: Math.round(performance.now() - started) };
  }

  // Waits until `frames` more frames of the other side's video were decoded.
  async watch({ frames }) {
    const before = (await this.stats()).frames;
    let now;
    await within(30000, `${frames} more frames than ${before}`, async () => {
      now = await this.stats();
      return now.frames >= before + frames;
    });
    return now;
  }

  // Tells what came in, and by which candidates.
  async stats() {
    const result = { received: this.received, frames: 0, state: this.pc.iceConnectionState };
    const reports = await this.pc.getStats();
    for (const report of reports.values()) {
      if (report.type === 'inbound-rtp' && report.kind === 'video') result.frames += report.framesDecoded || 0;
      if (report.type === 'transport' && report.selectedCandidatePairId) {
        const pair = reports.get(report.selectedCandidatePairId);
        const local = reports.get(pair.localCandidateId);
        result.candidate = local.candidateType;
        result.relay = local.relayProtocol;
        result.url = local.url;
        result.remote = reports.get(pair.remoteCandidateId).candidateType;
      }
    }
    return result;
  }
}

async function within(limit, what, condition) {
  const end = performance.now() + limit;
  while (!await condition()) {
    if (performance.now() > end) throw new Error(`waited ${limit} ms for ${what}`);
    await new Promise((resolve) => { setTimeout(resolve, 50); });
  }
}

function payload(number, size) {
  const bytes = new Uint8Array(size);
  new DataView(bytes.buffer).setUint32(0, number);
  for (let i = 0; i < size - 4; i++) bytes[i + 4] = (number + i) % 256;
  return bytes;
}

function same(one, other) {
  return one.length === other.length && one.every((byte, i) => byte === other[i]);
}
