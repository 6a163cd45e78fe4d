// A WebRTC peer by libdatachannel with libjuice that does what it is told, one line of JSON in, one line out.
//
// Arguments: the directory of Node packages, and {"urls": [...], "username": ..., "credential": ...}.
// It understands the words that the other peers do. libjuice speaks TURN over UDP alone, and knows RFC 8489.
"use strict";

const [packages, configuration] = process.argv.slice(2);
const rtc = require(`${packages}/node-datachannel`);
const { urls, username, credential } = JSON.parse(configuration);

rtc.initLogger("Verbose", (level, message) => console.error(`${level}: ${message}`));

const [, hostname, port] = /^turn:(.*):(\d+)\?transport=udp$/.exec(urls[0]);
const pc = new rtc.PeerConnection("peer", {
  iceServers: [{ hostname, port: Number(port), username, password: credential, relayType: "TurnUdp" }],
  iceTransportPolicy: "relay",
});
const gathered = new Promise((resolve) => {
  pc.onGatheringStateChange((state) => state === "complete" && resolve());
});
const replies = [];
let received = 0;
let wake = () => {};
let channel;
let answering;

pc.onDataChannel((incoming) => {
  answering = incoming; // kept, or it is collected
  incoming.onMessage((message) => {
    received += message.length;
    incoming.sendMessageBinary(message);
  });
});

async function described() {
  await gathered;
  const { type, sdp } = pc.localDescription();
  return { description: { type, sdp } };
}

const payload = (number, size) => {
  const bytes = Buffer.alloc(size, 0).map((_, index) => (number + index - 4) % 256);
  bytes.writeUInt32BE(number);
  return bytes;
};

const words = {
  async offer() {
    channel = pc.createDataChannel("echo");
    channel.onMessage((message) => {
      replies.push(Buffer.from(message));
      wake();
    });
    return described();
  },
  async answer({ description }) {
    pc.setRemoteDescription(description.sdp, description.type);
    return described();
  },
  async accept({ description }) {
    pc.setRemoteDescription(description.sdp, description.type);
    return {};
  },
  async echo({ count, size }) {
    if (!channel.isOpen()) await new Promise((resolve) => channel.onOpen(resolve));
    for (let number = 0; number < count; number++) channel.sendMessageBinary(payload(number, size));
    for (let number = 0; number < count; number++) {
      while (replies.length === 0) await new Promise((resolve) => (wake = resolve));
      const reply = replies.shift();
      if (!reply.equals(payload(number, size))) throw new Error(`message ${number} came back changed`);
    }
    return { echoed: count };
  },
  async stats() {
    const { local } = pc.getSelectedCandidatePair();
    return { received, candidate: local.type, state: pc.iceState() };
  },
};

require("readline")
  .createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const told = JSON.parse(line);
    const reply = await words[told.do](told).catch((error) => ({ error: String(error) }));
    console.log(JSON.stringify(reply));
  })
  .on("close", () => process.exit(0));
