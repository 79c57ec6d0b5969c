package datasets

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// readImages reads the PNG files of a folder in the order of their names. Where it has sub-folders instead, each is a
// class, numbered in the order of the names. Names that begin with a dot are left out.
func readImages(path string) (*table, error) {
	files, folders, err := listFolder(path)
	if err != nil {
		return nil, err
	}
	if len(files) > 0 && len(folders) > 0 {
		return nil, fmt.Errorf("%s: has files, such as %s, beside folders, such as %s, want PNG files or one folder of them a class", path, files[0], folders[0])
	}
	t := &table{classes: folders}
	add := func(folder string, files []string) error {
		for _, name := range files {
			if err := t.addImage(filepath.Join(folder, name)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := add(path, files); err != nil {
		return nil, err
	}
	for label, name := range folders {
		folder := filepath.Join(path, name)
		files, deeper, err := listFolder(folder)
		if err != nil {
			return nil, err
		}
		if len(deeper) > 0 || len(files) == 0 {
			return nil, fmt.Errorf("%s: %d files and %d folders, want PNG files of one class", folder, len(files), len(deeper))
		}
		if err := add(folder, files); err != nil {
			return nil, err
		}
		for range files {
			t.labels = append(t.labels, label)
		}
	}
	if t.shape == nil {
		return nil, fmt.Errorf("%s: no files, want PNG images", path)
	}
	return t, nil
}

func listFolder(path string) (files, folders []string, err error) {
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return nil, nil, fmt.Errorf("%s: a file, want a folder of PNG images", path)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, nil, plain(path, err)
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case strings.HasPrefix(name, "."):
		case e.IsDir():
			folders = append(folders, name)
		case strings.EqualFold(filepath.Ext(name), ".png"):
			files = append(files, name)
		default:
			return nil, nil, fmt.Errorf("%s: not a .png file, want PNG images alone", filepath.Join(path, name))
		}
	}
	return files, folders, nil
}

// addImage appends a file as a row. The first one sets the shape that all must have.
func (t *table) addImage(path string) error {
	f, size, err := openFile("png", path)
	if err != nil {
		return err
	}
	defer f.Close()
	pixels, shape, err := readPNG(f, size)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if t.shape == nil {
		t.shape = append([]int{0}, shape...)
	}
	if want := t.shape[1:]; !slices.Equal(shape, want) {
		return fmt.Errorf("%s: %s, want %s as the first image", path, imageSize(shape), imageSize(want))
	}
	t.shape[0]++
	t.data = append(t.data, pixels...)
	return nil
}

func imageSize(shape []int) string {
	if len(shape) == 2 {
		return fmt.Sprintf("grey, %d wide and %d high", shape[1], shape[0])
	}
	return fmt.Sprintf("colour, %d wide and %d high", shape[2], shape[1])
}

// readPNG decodes an opaque PNG image of up to 8 bits a channel: grey levels [height, width], or else red, green and blue
// [3, height, width], from 0 to 255.
func readPNG(r io.ReadSeeker, size int64) (pixels []float64, shape []int, err error) {
	header, err := png.DecodeConfig(r)
	if err != nil {
		return nil, nil, fmt.Errorf("not a PNG image, or a truncated one: %w", err)
	}
	// The decoder trusts the header. Deflate packs at most 1032 bytes into one, and a byte has up to 8 pixels.
	w, h := header.Width, header.Height
	if w < 1 || h < 1 || int64(w) > 8*1032*size/int64(h) {
		return nil, nil, fmt.Errorf("%d by %d pixels in %d bytes, which cannot hold them", w, h, size)
	}
	if m := header.ColorModel; m == color.Gray16Model || m == color.RGBA64Model || m == color.NRGBA64Model {
		return nil, nil, errors.New("16 bits a channel, want 8")
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return nil, nil, err
	}
	img, err := png.Decode(r)
	if err != nil {
		return nil, nil, fmt.Errorf("truncated or damaged: %w", err)
	}
	if grey, ok := img.(*image.Gray); ok {
		pixels = make([]float64, w*h)
		for i := range pixels {
			pixels[i] = float64(grey.GrayAt(i%w, i/w).Y)
		}
		return pixels, []int{h, w}, nil
	}
	pixels = make([]float64, 3*w*h)
	for i := range w * h {
		c := color.NRGBAModel.Convert(img.At(i%w, i/w)).(color.NRGBA)
		if c.A != 255 {
			return nil, nil, fmt.Errorf("pixel %d, %d is not opaque, want no transparency", i%w, i/w)
		}
		pixels[i], pixels[w*h+i], pixels[2*w*h+i] = float64(c.R), float64(c.G), float64(c.B)
	}
	return pixels, []int{3, h, w}, nil
}
