#!/usr/bin/perl
# Guards: 64 MiB both ways at once arrive byte for byte, in splice and in copy mode.
use strict;
use warnings;
use Digest::SHA ();
use HyperTest;
use IO::Select;
use RelayTest;
use Test::More;

my $total = 64 << 20;
my $chunk = join '', map { pack 'N', $_ * 2654435761 & 0xffffffff } 1 .. 65536;    # 256 KiB

# The stream that a side sends, from byte `at` on: a chunk whose bytes differ in each repetition.
sub piece {
	my ($salt, $at) = @_;
	my $rep = int($at / length $chunk);
	my $text = pack('NN', $salt, $rep) . substr($chunk, 8);
	return substr $text, $at % length $chunk;
}

both_modes(sub {
	my ($d, $mode) = @_;
	my ($a, $b, $id) = pair($d);
	my %st = map { $_->[0] => { salt => $_->[1], sent => 0, got => 0, out => Digest::SHA->new(256), in => Digest::SHA->new(256) } }
	    ([ $a, 1 ], [ $b, 2 ]);
	my ($rd, $wr) = (IO::Select->new($a, $b), IO::Select->new($a, $b));
	my $end = time + 120 * slow_factor();
	$_->blocking(0) for $a, $b;
	while ($rd->count && time < $end) {
		my ($r, $w) = IO::Select->select($rd, $wr, undef, 5);
		for my $s (@{ $w // [] }) {
			my $st = $st{$s};
			my $data = piece($st->{salt}, $st->{sent});
			$data = substr $data, 0, $total - $st->{sent} if length $data > $total - $st->{sent};
			my $n = syswrite $s, $data;
			next if !defined $n;
			$st->{out}->add(substr $data, 0, $n);
			$st->{sent} += $n;
			if ($st->{sent} == $total) {
				half_close($s);
				$wr->remove($s);
			}
		}
		for my $s (@{ $r // [] }) {
			my $n = sysread $s, my $data, 262144;
			next if !defined $n;
			$rd->remove($s) if $n == 0;
			$st{$s}{in}->add($data);
			$st{$s}{got} += $n;
		}
	}
	is($st{$a}{got}, $total, "$mode: all bytes came to a");
	is($st{$b}{got}, $total, "$mode: all bytes came to b");
	is($st{$a}{in}->hexdigest, $st{$b}{out}->hexdigest, "$mode: a got what b sent");
	is($st{$b}{in}->hexdigest, $st{$a}{out}->hexdigest, "$mode: b got what a sent");
	is_deeply(end_of($d, $id), { reason => 'closed', ab => $total, ba => $total }, "$mode: clean end, every byte counted");
});
