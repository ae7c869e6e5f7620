// Clients that look at their jobs while workers render:
//   k6 run -e URL=http://127.0.0.1:8000 -e KEY=... bench/serve_load.js
// Fails when the 95th percentile of requests without an upload is above 100 ms, or any answer is a 5xx.
import http from 'k6/http';
import { check, sleep } from 'k6';

const url = __ENV.URL || 'http://127.0.0.1:8000';
const headers = __ENV.KEY ? { Authorization: `Bearer ${__ENV.KEY}` } : {};
const image = open(__ENV.IMAGE || '../sonic_ms/examples/portrait.jpg', 'b');
const audio = open(__ENV.AUDIO || '../sonic_ms/examples/speech.wav', 'b');

export const options = {
  scenarios: {
    clients: { executor: 'constant-vus', vus: Number(__ENV.CLIENTS || 50), duration: __ENV.DURATION || '60s' },
  },
  thresholds: { 'http_req_duration{kind:look}': ['p(95)<100'], checks: ['rate==1.0'] },
};

function fine(answer) {
  check(answer, { 'no 5xx': (one) => one.status > 0 && one.status < 500 });
  return answer;
}

export function setup() {
  const ids = [];
  for (let seed = 0; seed < Number(__ENV.JOBS || 10); seed++) {
    const form = {
      input_reference: http.file(image, 'portrait.jpg'), audio_reference: http.file(audio, 'speech.wav'),
      seed: String(seed), min_resolution: '128', duration: '2',
    };
    ids.push(fine(http.post(`${url}/v1/videos`, form, { headers, tags: { kind: 'make' } })).json('id'));
  }
  return ids;
}

export default function (ids) {
  const look = { headers, tags: { kind: 'look' } };
  const id = ids[Math.floor(Math.random() * ids.length)];
  fine(http.get(`${url}/v1/videos/${id}`, look));
  fine(http.get(`${url}/v1/videos?limit=20`, look));
  fine(http.get(`${url}/readyz`, look));
  sleep(Number(__ENV.PAUSE || 1));
}
