export default () => <p>a static name</p>;
