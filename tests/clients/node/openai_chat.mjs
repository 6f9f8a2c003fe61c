// OpenAI's own SDK.
import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const written = new Function("OpenAI", `return ${process.env.WRITTEN}`);
const client = written(OpenAI).withOptions({ maxRetries: 0 });
const model = process.env.MODEL;
const [mode, ...texts] = process.argv.slice(2);

const weather = (cities) =>
  zodFunction({
    name: "get_weather",
    description: "The weather of a city",
    parameters: z.object({ city: z.string() }),
    function: ({ city }) => {
      cities.push(city);
      return `7 degrees in ${city}`;
    },
  });

const shape = z.object({ city: z.string(), degrees: z.number().int() });
const response_format = zodResponseFormat(shape, "weather");

async function run(texts, options = {}) {
  const calls = [];
  let messages = [];
  let runner;
  for (const content of texts) {
    messages.push({ role: "user", content });
    runner = client.chat.completions.runTools({ model, messages, tools: [weather(calls)], ...options });
    await runner.done();
    messages = [...runner.messages];
  }
  const { content, parsed } = await runner.finalMessage();
  return { text: content, calls, object: parsed };
}

const modes = {
  async chat(...texts) {
    const messages = [];
    for (const [number, content] of texts.entries()) {
      messages.push({ role: "user", content });
      const answer =
        number % 2
          ? await client.chat.completions.create({ model, messages })
          : await client.chat.completions.stream({ model, messages }).finalChatCompletion();
      messages.push(answer.choices[0].message);
    }
    return { answers: messages.filter((it) => it.role === "assistant").map((it) => it.content) };
  },

  async stream(content) {
    const messages = [{ role: "user", content }];
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    let text = "";
    let deltas = 0;
    for await (const chunk of stream) {
      if (chunk.choices[0].delta.content) {
        text += chunk.choices[0].delta.content;
        deltas += 1;
      }
    }
    return { text, deltas };
  },

  tools: (...texts) => run(texts),

  stream_tools: (...texts) => run(texts, { stream: true }),

  async document(...texts) {
    const messages = [];
    for (const content of texts) {
      messages.push({ role: "user", content });
      const answer = await client.chat.completions.parse({ model, messages, response_format });
      messages.push(answer.choices[0].message);
    }
    return { object: messages.at(-1).parsed };
  },

  async stream_document(...texts) {
    const messages = [];
    for (const content of texts) {
      messages.push({ role: "user", content });
      const stream = client.chat.completions.stream({ model, messages, response_format });
      messages.push((await stream.finalChatCompletion()).choices[0].message);
    }
    return { object: messages.at(-1).parsed };
  },

  document_by_tools: (text) => run([text], { response_format }),

  async look(text, image, pdf) {
    const content = [
      { type: "text", text },
      { type: "image_url", image_url: { url: `data:image/png;base64,${image}` } },
      { type: "file", file: { filename: "a.pdf", file_data: `data:application/pdf;base64,${pdf}` } },
    ];
    const answer = await client.chat.completions.create({ model, messages: [{ role: "user", content }] });
    return { text: answer.choices[0].message.content };
  },
};

console.log(JSON.stringify(await modes[mode](...texts)));
