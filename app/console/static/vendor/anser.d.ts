import Anser from "anser";
export default Anser;
