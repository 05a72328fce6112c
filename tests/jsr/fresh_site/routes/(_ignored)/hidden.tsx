export default () => <p>hidden</p>;
