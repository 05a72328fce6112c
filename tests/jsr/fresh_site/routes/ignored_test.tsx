export default () => <p>a test</p>;
