// A call to a live session: sound goes there by WebRTC, face and voice come back. The WebSocket carries what has to be
// agreed, and its end is the session's end. Both pages use it, that of `sonic-ms live` and that of the service.

const GATHERING = 2000; // milliseconds for the addresses of this computer

/**
 * Begin a call that shows its face in `video`; {interrupt, close}.
 *
 * first: object that is sent before all else. speaking: the session has answered. connected: sound and pictures flow.
 * refused: an error came, as a message; it may be without one when no way to the other side is found. ended: the other
 * side has gone, or refused; never after `close`.
 */
export function call(address, stream, video, { first, speaking, connected = () => {}, refused, ended }) {
  const connection = new RTCPeerConnection();
  const socket = new WebSocket(address);
  const shown = new MediaStream();
  const close = () => {
    socket.onclose = connection.onconnectionstatechange = null;
    for (const track of stream.getTracks()) track.stop();
    connection.close();
    socket.close();
  };
  video.srcObject = shown;
  connection.ontrack = (event) => shown.addTrack(event.track);
  connection.onconnectionstatechange = () => {
    if (connection.connectionState === "connected") connected();
    if (connection.connectionState === "failed") refused({ kind: "no_connection" });
  };
  for (const track of stream.getAudioTracks()) {
    connection.addTransceiver(track, { direction: "sendrecv", streams: [stream] });
  }
  connection.addTransceiver("video", { direction: "recvonly" });
  if (first) socket.onopen = () => socket.send(JSON.stringify(first));
  socket.onclose = () => ended();
  socket.onmessage = async (event) => {
    const message = JSON.parse(event.data);
    if (message.type === "hello") {
      await connection.setLocalDescription(await connection.createOffer());
      await gathered(connection);
      socket.send(JSON.stringify({ type: "offer", sdp: connection.localDescription.sdp }));
    } else if (message.type === "answer") {
      await connection.setRemoteDescription({ type: "answer", sdp: message.sdp });
      speaking();
    } else if (message.type === "error") {
      refused(message);
    }
  };
  return { interrupt: () => socket.send(JSON.stringify({ type: "interrupt" })), close };
}

/** The sound of a file as a stream, and a function that begins to play it. Throws for what is no sound. */
export async function played(file) {
  const context = new AudioContext();
  try {
    const buffer = await context.decodeAudioData(await file.arrayBuffer());
    const source = new AudioBufferSourceNode(context, { buffer });
    const target = context.createMediaStreamDestination();
    source.connect(target);
    return { stream: target.stream, play: () => source.start(), close: () => context.close() };
  } catch (error) {
    context.close();
    throw error;
  }
}

/** Wait for the addresses at which this computer can be reached, but not for ever. */
function gathered(connection) {
  if (connection.iceGatheringState === "complete") return null;
  return new Promise((done) => {
    connection.addEventListener("icegatheringstatechange", () => connection.iceGatheringState === "complete" && done());
    setTimeout(done, GATHERING);
  });
}
