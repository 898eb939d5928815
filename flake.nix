# `nix build` builds and installs rapt and rapt-tune; `nix develop` gives a shell in which `meson setup build` finds all
# that tests, tuner, benchmarks and docs need. The tests evaluate this file with names in the place of nixpkgs
# (tests/embed/flake_test.nix); they do not build it, since that takes nixpkgs' own servers.
{
  description = "rapt: attention for CPUs";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      forEachSystem = make:
        nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
      # What a file says behind a word: this project's version, the source of Highway.
      value = file: before: after:
        builtins.head (builtins.match ".*${before}([^\n']+)${after}.*" (builtins.readFile file));
      version = value ./meson.build "\n  version: '" "',\n";
      wrap = key: value ./subprojects/highway.wrap "\n${key} = " "\n";
    in
    {
      packages = forEachSystem (pkgs: {
        default = pkgs.stdenv.mkDerivation {
          pname = "rapt";
          inherit version;
          src = self;
          strictDeps = true;
          nativeBuildInputs = [ pkgs.meson pkgs.ninja pkgs.pkg-config ];
          buildInputs = [ pkgs.onetbb pkgs.cli11 ];
          # The Highway that the wrap names, whichever version nixpkgs has. A build has no network.
          postPatch = ''
            mkdir -p subprojects/packagecache
            cp ${pkgs.fetchurl { url = wrap "source_url"; sha256 = wrap "source_hash"; }} \
              subprojects/packagecache/${wrap "source_filename"}
          '';
          mesonFlags = [ "-Dtests=false" "-Dtune=true" ];
          meta = {
            description = "Attention for CPUs";
            license = nixpkgs.lib.licenses.asl20;
            platforms = systems;
            mainProgram = "rapt-tune";
          };
        };
      });

      devShells = forEachSystem (pkgs: {
        default = pkgs.mkShell {
          inputsFrom = [ self.packages.${pkgs.stdenv.hostPlatform.system}.default ];
          packages = [
            pkgs.clang-tools
            pkgs.cmake
            pkgs.doxygen
            pkgs.gbenchmark
            pkgs.gtest
            pkgs.nlohmann_json
            pkgs.python3
          ];
        };
      });
    };
}
