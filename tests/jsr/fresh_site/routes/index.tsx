import { Head } from "fresh/runtime";

export default () => (
  <>
    <Head>
      <title>index</title>
      <meta name="from" content="page" />
    </Head>
    <h1>{"<home>"}</h1>
  </>
);
