// OpenAI's own SDK.
import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({ maxRetries: 0 });
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

  async tools(content, options = {}) {
    const calls = [];
    const messages = [{ role: "user", content }];
    const runner = client.chat.completions.runTools({ model, messages, tools: [weather(calls)], ...options });
    return { text: await runner.finalContent(), calls };
  },

  stream_tools: (content) => modes.tools(content, { stream: true }),

  async document(content) {
    const shape = z.object({ city: z.string(), degrees: z.number().int() });
    const answer = await client.chat.completions.parse({
      model,
      messages: [{ role: "user", content }],
      response_format: zodResponseFormat(shape, "weather"),
    });
    return { object: answer.choices[0].message.parsed };
  },
};

console.log(JSON.stringify(await modes[mode](...texts)));
