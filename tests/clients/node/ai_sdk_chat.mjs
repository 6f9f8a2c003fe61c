// Vercel's AI SDK with its provider for servers like OpenAI's.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const provider = createOpenAICompatible({
  name: "claude-coded",
  baseURL: process.env.OPENAI_BASE_URL,
  apiKey: process.env.OPENAI_API_KEY,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const common = { model: provider(process.env.MODEL), maxRetries: 0 };
const [mode, ...texts] = process.argv.slice(2);

function fail({ error }) {
  throw error;
}

const withWeather = (calls) => ({
  ...common,
  stopWhen: stepCountIs(5),
  tools: {
    get_weather: tool({
      description: "The weather of a city",
      inputSchema: z.object({ city: z.string() }),
      execute: async ({ city }) => {
        calls.push(city);
        return `7 degrees in ${city}`;
      },
    }),
  },
});

const modes = {
  async chat(...texts) {
    const messages = [];
    const answers = [];
    for (const [number, content] of texts.entries()) {
      messages.push({ role: "user", content });
      const answer = number % 2 ? await generateText({ ...common, messages }) : streamText({ ...common, messages });
      answers.push(await answer.text);
      messages.push(...(await answer.response).messages);
    }
    return { answers };
  },

  async stream(prompt) {
    const stream = streamText({ ...common, prompt, onError: fail });
    let text = "";
    let deltas = 0;
    for await (const delta of stream.textStream) {
      text += delta;
      deltas += 1;
    }
    const reasoning = await stream.reasoningText;
    const usage = await stream.usage;
    return { text, deltas, reasoning, finish: await stream.finishReason, tokens: usage.outputTokens };
  },

  async tools(prompt) {
    const calls = [];
    const { text } = await generateText({ ...withWeather(calls), prompt });
    return { text, calls };
  },

  async stream_tools(prompt) {
    const calls = [];
    const stream = streamText({ ...withWeather(calls), prompt, onError: fail });
    return { text: await stream.text, calls };
  },

  async document(prompt) {
    const schema = z.object({ city: z.string(), degrees: z.number().int() });
    const { object } = await generateObject({ ...common, schema, prompt });
    return { object };
  },
};

console.log(JSON.stringify(await modes[mode](...texts)));
