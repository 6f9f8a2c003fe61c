// OpenAI's own SDK by the Responses API: after a response by its id where nothing is streamed, else with all items.
import OpenAI from "openai";
import { zodResponsesFunction, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const written = new Function("OpenAI", `return ${process.env.WRITTEN}`);
const client = written(OpenAI).withOptions({ maxRetries: 0 });
const model = process.env.MODEL;
const [mode, ...texts] = process.argv.slice(2);

const tools = [
  zodResponsesFunction({
    name: "get_weather",
    description: "The weather of a city",
    parameters: z.object({ city: z.string() }),
  }),
];
const shape = z.object({ city: z.string(), degrees: z.number().int() });
const text = { format: zodTextFormat(shape, "weather") };

// Two ways to ask: each takes what is new, and goes on with what was said.
function byId(more = {}) {
  let previous;
  return async (input) => {
    const answer = await client.responses.parse({ model, input, previous_response_id: previous, ...more });
    previous = answer.id;
    return answer;
  };
}

function byItems(more = {}) {
  const items = [];
  return async (input) => {
    items.push(...input);
    const include = ["reasoning.encrypted_content"];
    const stream = client.responses.stream({ model, input: items, store: false, include, ...more });
    const answer = await stream.finalResponse();
    items.push(...answer.output);
    return answer;
  };
}

const said = (content) => [{ role: "user", content }];

async function run(texts, ask) {
  const calls = [];
  let answer;
  for (const content of texts) {
    let input = said(content);
    while (input.length) {
      answer = await ask(input);
      input = [];
      for (const item of answer.output.filter((it) => it.type === "function_call")) {
        const { city } = item.parsed_arguments;
        calls.push(city);
        input.push({ type: "function_call_output", call_id: item.call_id, output: `7 degrees in ${city}` });
      }
    }
  }
  return { text: answer.output_text, calls, object: answer.output_parsed };
}

async function chat(texts, ask) {
  const answers = [];
  for (const content of texts) answers.push((await ask(said(content))).output_text);
  return { answers };
}

const modes = {
  chat: (...texts) => chat(texts, byId()),

  async stream(input) {
    const stream = await client.responses.create({ model, input, stream: true });
    let text = "";
    let deltas = 0;
    for await (const event of stream) {
      if (event.type === "response.output_text.delta") {
        text += event.delta;
        deltas += 1;
      }
    }
    return { text, deltas };
  },

  tools: (...texts) => run(texts, byId({ tools })),

  stream_tools: (...texts) => run(texts, byItems({ tools })),

  document: (...texts) => run(texts, byId({ text })),

  stream_document: (...texts) => run(texts, byItems({ text })),

  document_by_tools: (content) => run([content], byId({ tools, text })),

  async look(text, image, pdf) {
    const content = [
      { type: "input_text", text },
      { type: "input_image", image_url: `data:image/png;base64,${image}`, detail: "auto" },
      { type: "input_file", filename: "a.pdf", file_data: `data:application/pdf;base64,${pdf}` },
    ];
    return { text: (await byId()([{ role: "user", content }])).output_text };
  },
};

console.log(JSON.stringify(await modes[mode](...texts)));
