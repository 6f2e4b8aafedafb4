// What http-cache-semantics says of exchanges: one JSON line each on standard input, one answer each on standard
// output. It is asked as a shared cache, at the times an exchange names.
import CachePolicy from 'http-cache-semantics';
import { createInterface } from 'node:readline';

let now = 0;
class Policy extends CachePolicy {
    now() { return now * 1000; }
}

const seconds = (number) => Math.max(0, Math.floor(number + 1e-6));
const assessed = (policy) => ({
    stored: policy.storable(),
    lifetime: seconds(policy.maxAge()),
    age: Math.floor(policy.age() + 1e-6),
});

function reuse(policy, request) {
    const { response, revalidation } = policy.evaluateRequest(request);
    if (!response) return 'confirmed';
    return revalidation ? 'while' : 'now';
}

// A later question is put with the lifetime and the age that the earlier ones came to: what was explained there is not
// counted again, and hides nothing here.
function given(policy, { lifetime, age }) {
    policy.maxAge = () => lifetime;
    policy.age = () => age;
    return policy;
}

// The stored response as the 304 is to update it: it takes names that it did not have, and loses its own Date and Age.
function updatable(stored, told) {
    const { date, age, ...headers } = stored.headers;
    const blank = Object.keys(told.headers).filter((name) => name !== 'etag');
    const blanks = Object.fromEntries(blank.map((name) => [name, headers[name] ?? '']));
    return { ...stored, headers: { ...headers, ...blanks } };
}

function answer(exchange) {
    now = exchange.stored_at;
    const make = (response) => new Policy(exchange.first, response, { shared: true });
    const policy = make(exchange.stored);
    const plain = exchange.told && make(updatable(exchange.stored, exchange.told));
    now = exchange.asked_at;
    const answers = assessed(policy);
    if (!exchange.given) return answers;
    answers.reuse = reuse(given(policy, exchange.given), exchange.second);
    const revalidated = policy.revalidatedPolicy(exchange.second, exchange.told);
    answers.matches = revalidated.matches;
    answers.after = assessed(revalidated.policy);
    if (exchange.told.status === 304 && revalidated.matches) {
        answers.updated = assessed(plain.revalidatedPolicy(exchange.second, exchange.told).policy);
    }
    return answers;
}

for await (const line of createInterface({ input: process.stdin })) {
    process.stdout.write(`${JSON.stringify(answer(JSON.parse(line)))}\n`);
}
