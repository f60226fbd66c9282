"""Archives of images, in and out: OCI layouts and what `docker save` writes, as a directory or in a tar.

Reading has three layers. `files` opens an archive's files by name, wherever they lie: in a directory, in a tar that can be sought
in, or in a stream that passes once. `layout`, `dockerarchive` and `containerd` say which images are there, and in which file each
blob is. `load` takes what is asked for into the store, each blob verified. `save` goes the other way.
"""
