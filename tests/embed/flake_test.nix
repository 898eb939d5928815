# What flake.nix makes of this tree, given a nixpkgs in which every package is its own name: Nix need not fetch anything.
let
  names = [ "cli11" "clang-tools" "cmake" "doxygen" "gbenchmark" "gtest" "meson" "ninja" "nlohmann_json" "onetbb"
    "pkg-config" "python3" ];
  named = builtins.listToAttrs (map (name: { inherit name; value = name; }) names);
  pkgs = named // {
    stdenv = { mkDerivation = what: what; hostPlatform.system = "x86_64-linux"; };
    mkShell = what: what;
    fetchurl = { url, sha256 }: "${url} ${sha256}";
  };
  outputs = (import ../../flake.nix).outputs { self = outputs; inherit nixpkgs; };
  nixpkgs = {
    lib = {
      genAttrs = systems: make: builtins.listToAttrs (map (name: { inherit name; value = make name; }) systems);
      licenses.asl20 = "Apache-2.0";
    };
    legacyPackages = { x86_64-linux = pkgs; aarch64-linux = pkgs; };
  };
  package = system: removeAttrs outputs.packages.${system}.default [ "src" ];
in
{
  packages = map package [ "x86_64-linux" "aarch64-linux" ];
  shell = outputs.devShells.x86_64-linux.default.packages;
}
